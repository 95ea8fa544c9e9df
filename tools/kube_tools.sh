#!/usr/bin/env bash
# Puts the programs of a test cluster into one folder and prints it: Kubernetes (all components in one binary, called
# by their names), etcd, CoreDNS, local-path-provisioner, helm, kind, kwok, pause.
# They come from prebuilt parts where a folder with them is at hand (checked against its SHA256SUMS), and are built from
# pinned Go modules otherwise (about 15 minutes on two cores, then kept). Safe to repeat and to run at once.
#   EYAS_CACHE      what is kept between checkouts (default: ~/.cache/eyas)
#   EYAS_PREBUILT   folder with NAME.zst and SHA256SUMS (default: ../shared/cluster/prebuilt beside the checkout)
set -euo pipefail
cd "$(dirname "$0")/kube"
. ./versions.sh
cache=${EYAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/eyas}/kube-tools
prebuilt=${EYAS_PREBUILT:-../../../shared/cluster/prebuilt}
key=$KUBERNETES-$(cat versions.sh go.mod go.sum pause.c ./*/main.go | sha256sum | cut -c1-12)
bin=$cache/$key/bin
components=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubeadm kubectl)
say() { printf 'kube tools: %s\n' "$*" >&2; }

if [ -e "$bin/complete" ]; then echo "$bin"; exit; fi
mkdir -p "$bin"
exec 9> "$cache/$key/lock"
flock 9
if [ -e "$bin/complete" ]; then echo "$bin"; exit; fi

unpack() {  # every prebuilt part that is still missing
  command -v zstd > /dev/null || { say "zstd is not installed: the prebuilt parts are left alone"; return; }
  (cd "$prebuilt" && sha256sum --quiet --check SHA256SUMS) || { say "$prebuilt does not match its SHA256SUMS"; exit 65; }
  local part name
  for part in "$prebuilt"/*.zst; do
    name=$(basename "$part" .zst)
    [ -e "$bin/$name" ] || { zstd -dqf "$part" -o "$bin/.$name" && chmod 755 "$bin/.$name" && mv "$bin/.$name" "$bin/$name"; }
  done
}

built() {  # NAME COMMAND...: build one program under a temporary name, unless it is there
  local name=$1 began=$SECONDS; shift
  [ -e "$bin/$name" ] && return
  "$@" "$bin/.$name"
  mv "$bin/.$name" "$bin/$name"
  say "built $name in $((SECONDS - began)) s"
}
go_here() { go build -ldflags "-s -w ${3:-}" -o "$4" "$2"; }          # from go.mod beside this file
from_module() {  # MODULE@VERSION PACKAGE OUTPUT: as the module's own authors build it, with its go.sum and its replacements
  local source copy status; source=$(cd / && go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  copy=$(mktemp -d) status=0
  cp -r --no-preserve=mode "$source/." "$copy"
  (cd "$copy" && go build -ldflags '-s -w' -o "$3" "$2") || status=$?
  rm -rf "$copy"
  return $status
}

[ ! -e "$prebuilt/SHA256SUMS" ] || unpack
command -v go > /dev/null || [ -e "$bin/kube" ] || { say "Go is needed to build the cluster's programs: https://go.dev/dl"; exit 78; }
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath"
version="-X k8s.io/component-base/version.gitVersion=$KUBERNETES -X k8s.io/component-base/version.gitMajor=1"
version+=" -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<< "$KUBERNETES") -X k8s.io/component-base/version.gitTreeState=clean"
version+=" -X k8s.io/component-base/version.buildDate=2026-01-01T00:00:00Z -X k8s.io/client-go/pkg/version.gitVersion=$KUBERNETES"
built kube go_here kube ./kube "$version"
built etcd go_here etcd go.etcd.io/etcd/server/v3 ""
built coredns go_here coredns ./coredns ""
built local-path-provisioner go_here local-path-provisioner github.com/rancher/local-path-provisioner ""
built helm go_here helm helm.sh/helm/v3/cmd/helm ""
built kind go_here kind sigs.k8s.io/kind ""
built kwok from_module "sigs.k8s.io/kwok@$KWOK" ./cmd/kwok
built pause gcc -Os -static -s pause.c -o
for component in "${components[@]}"; do ln -sf kube "$bin/$component"; done
touch "$bin/complete"
echo "$bin"
