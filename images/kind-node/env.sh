# Sourced by every script of this folder: where things are, and under which names.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/../../tools/kube/versions.sh"
CACHE=${EYAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/eyas}
WORK=$CACHE/kind-node
BIN=$("$HERE/../../tools/kube_tools.sh")
KEY=$(cat "$HERE"/* "$HERE/../../tools/kube/versions.sh" "$HERE/../../tools/kube/go.sum" | sha256sum | cut -c1-12)
BASE_IMAGE=localhost/eyas-kind-base:$KEY
NODE_IMAGE=localhost/eyas-kind-node:$KUBERNETES-$KEY
ROOT=$WORK/rootfs-$KEY
export PATH=$BIN:$PATH DOCKER_BUILDKIT=0
mkdir -p "$WORK"
kind_sources() {  # the folder with the files that kind's images are made of
  (cd "$HERE/../../tools/kube" && go mod download "sigs.k8s.io/kind@$KIND" && go list -m -f '{{.Dir}}' sigs.k8s.io/kind)
}
debian_mirror() {  # EYAS_DEBIAN_MIRROR, or what this machine itself uses
  local own
  own=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources 2> /dev/null || true)
  echo "${EYAS_DEBIAN_MIRROR:-${own:-http://deb.debian.org/debian}}"
}
