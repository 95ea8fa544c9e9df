#!/usr/bin/env bash
# Creates the kind cluster of three nodes that run pods, unless it answers. Nothing in it reaches an address outside
# this machine: where a Service has no rules its packets leave by the default route, and a broken cluster would look
# like a working one.
. "$(dirname "$0")/env.sh"

if kind get clusters 2> /dev/null | grep -qx "$CLUSTER"; then
  kubectl get --raw /readyz --request-timeout=5s > /dev/null 2>&1 && exit
  say "the cluster does not answer and is made anew"
  kind delete cluster --name "$CLUSTER" 2> /dev/null
fi
node_image=${EYAS_NODE_IMAGE:-$("$HERE/node_image.sh")}
mkdir -p "$STATE/shared" && chmod 0777 "$STATE/shared"
docker network inspect kind > /dev/null 2>&1 || docker network create -o com.docker.network.bridge.name=kind0 kind > /dev/null
fence=(DOCKER-USER -i kind0 ! -o kind0 -m conntrack --ctstate NEW -j REJECT)
iptables -C "${fence[@]}" 2> /dev/null || iptables -I "${fence[@]}"
limit=/proc/sys/fs/inotify/max_user_instances
[ "$(cat $limit)" -ge 512 ] || echo 512 > $limit

mounts="  extraMounts:
  - {hostPath: $STATE/inputs, containerPath: /eyas/inputs, readOnly: true}
  - {hostPath: $STATE/shared, containerPath: /eyas/shared}"
kind create cluster --quiet --name "$CLUSTER" --image "$node_image" --wait 180s --config - <<Y
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
$mounts
- role: worker
$mounts
- role: worker
$mounts
Y
kubectl taint nodes --all node-role.kubernetes.io/control-plane- > /dev/null 2>&1 || true  # it runs pods of jobs too
kubectl wait --for=condition=Ready nodes --all --timeout=120s > /dev/null
