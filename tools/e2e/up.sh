#!/usr/bin/env bash
# From nothing to a cluster with the chart installed; prints seconds per stage and the path of the kubeconfig. With the
# cluster up already: only what changed (images, chart) is brought to it.
. "$(dirname "$0")/env.sh"
# A daemon of the user's own choice is as good as Debian's; a client alone is not enough.
packages=(debootstrap jq libcap2-bin zstd iptables)
docker version > /dev/null 2>&1 || command -v dockerd > /dev/null || packages+=(docker.io)
tools/packages.sh "${packages[@]}" >&2
PATH=$(tools/kube_tools.sh):$PATH; export PATH
table=()
stage() {  # NAME COMMAND...
  local name=$1 began=$SECONDS; shift
  "$@" >&2 || { say "$name failed"; exit 70; }
  table+=("$(printf '%-28s %5d s' "$name" $((SECONDS - began)))")
}
stage "docker daemon" tools/e2e/docker.sh up
stage "images" images/build.sh
stage "node image" tools/e2e/node_image.sh
stage "model and prompts" tools/e2e/inputs.sh
stage "cluster of three nodes" tools/e2e/cluster.sh
stage "images into the nodes" tools/e2e/load.sh
stage "capacity, storage, claims" tools/e2e/furnish.sh
stage "chart" tools/e2e/chart.sh
printf '%s\n' "${table[@]}" >&2
printf '%-28s %5d s\n' "all" "$SECONDS" >&2
echo "$KUBECONFIG"
