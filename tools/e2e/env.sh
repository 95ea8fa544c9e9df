# Sourced by the scripts of this folder: names and places of the test cluster.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
cd "$ROOT"
. tools/kube/versions.sh
CACHE=${EYAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/eyas}
STATE=$CACHE/e2e
CLUSTER=${EYAS_CLUSTER:-eyas-e2e}
NAMESPACE=eyas-e2e
# The published node image of the same minor version, for machines that reach a registry.
PUBLISHED_NODE=kindest/node:v1.34.0@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a
export KUBECONFIG=$STATE/kubeconfig DOCKER_BUILDKIT=0
mkdir -p "$STATE"
say() { printf 'e2e: %s\n' "$*" >&2; }
