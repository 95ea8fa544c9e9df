#!/usr/bin/env bash
# Deletes the cluster and everything that up.sh made in it, and ends dockerd if up.sh started it.
. "$(dirname "$0")/env.sh"
PATH=$(tools/kube_tools.sh):$PATH; export PATH
if docker version > /dev/null 2>&1; then
  kind delete cluster --name "$CLUSTER" > /dev/null 2>&1 || true
  fence=(DOCKER-USER -i kind0 ! -o kind0 -m conntrack --ctstate NEW -j REJECT)
  while iptables -D "${fence[@]}" 2> /dev/null; do :; done
  docker network rm kind > /dev/null 2>&1 || true
fi
rm -rf "$STATE/shared" "$KUBECONFIG"
tools/e2e/docker.sh down
