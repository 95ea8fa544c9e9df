#!/bin/bash
# Makes the images that a node preloads, as one docker archive: $WORK/images.tar.
. "$(dirname "$0")/env.sh"
root=$ROOT ctx=$WORK/context
rm -rf "$ctx" && mkdir -p "$ctx"/{kube/usr/local/bin,kube/tmp,tools/{bin,usr/sbin,usr/lib/x86_64-linux-gnu,run,etc},busybox/{bin,tmp,etc}}
cp "$BIN"/{etcd,coredns,pause,local-path-provisioner} "$ctx"/
cp "$BIN/kube" "$ctx/kube/usr/local/bin/kube"
for c in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl; do ln -s kube "$ctx/kube/usr/local/bin/$c"; done

# kube-proxy and the pod network need a shell, ip, iptables and nft; tests want a busybox
stage() {  # DIR PROGRAM...: the programs and their shared libraries
  local to=$1 f; shift
  for f in "$@" $(for f in "$@"; do chroot "$root" ldd "$f" | grep -o '/[^ ]*'; done | sort -u); do
    mkdir -p "$to$(dirname "$f")" && cp -L "$root$f" "$to$f"
  done
}
stage "$ctx/busybox" /bin/busybox
for a in $(chroot "$root" busybox --list); do ln -s busybox "$ctx/busybox/bin/$a" 2> /dev/null || true; done
stage "$ctx/tools" /bin/busybox /usr/sbin/{xtables-nft-multi,nft,conntrack} $(cd "$root" && printf "/%s\n" usr/lib/x86_64-linux-gnu/xtables/*.so)  # the extensions too: statistic needs libm
for a in sh sleep ip cat mv grep; do ln -s busybox "$ctx/tools/bin/$a"; done
for a in {iptables,ip6tables}{,-save,-restore}; do ln -s xtables-nft-multi "$ctx/tools/usr/sbin/$a"; done
printf 'root:x:0:0:root:/root:/bin/sh\n' | tee "$ctx/busybox/etc/passwd" > "$ctx/tools/etc/passwd"

r=registry.k8s.io
image() { DOCKER_BUILDKIT=0 docker build -q -f "$HERE/Dockerfile" --target "$1" -t "$2" "$ctx" > /dev/null 2>&1; names+=("$2"); }
names=()
for c in kube-apiserver kube-controller-manager kube-scheduler; do image kube $r/$c:$KUBERNETES; done
image kube-proxy $r/kube-proxy:$KUBERNETES
image etcd $r/etcd:$ETCD_TAG
image coredns $r/coredns/coredns:$COREDNS_TAG
image pause $r/pause:$PAUSE_TAG
image local-path-provisioner localhost/local-path-provisioner:$LOCAL_PATH_TAG
image busybox localhost/busybox:latest
docker save -o "$WORK/images.tar" "${names[@]}"
