#!/bin/bash
# Makes $BASE_IMAGE, what a kind node runs on: Debian bookworm (its systemd still knows cgroup v1), containerd, and the files
# of kind's own Go module.
. "$(dirname "$0")/env.sh"
kind=$(kind_sources)
root=$ROOT
if [ ! -e "$root.complete" ]; then
  rm -rf "$root"
  debootstrap --variant=minbase --include=systemd,conntrack,iptables,nftables,iproute2,ethtool,kmod,pigz,ca-certificates,curl,jq,procps,runc,containerd,containernetworking-plugins,busybox \
    bookworm "$root" "$(debian_mirror)"
  touch "$root.complete"
fi
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

# kind's own files (the module cache is read-only: modes are set here)
cp -r --no-preserve=mode "$kind"/images/base/files/. "$root"/
chmod 755 "$root"/usr/local/bin/* "$root"/kind/bin/*
install -D -m755 "$HERE/crictl" "$root/usr/local/bin/crictl"
sed -i "s|registry.k8s.io/pause:3.10\"|registry.k8s.io/pause:$PAUSE_TAG\"|" "$root/etc/containerd/config.toml"
# no CAP_SYS_RESOURCE, so no process's OOM score can be lowered
sed -i 's|restrict_oom_score_adj = false|restrict_oom_score_adj = true|' "$root/etc/containerd/config.toml"
ln -sf /usr/bin/containerd "$root/usr/local/bin/containerd"
mkdir -p "$root/opt/cni/bin" "$root/etc/kubernetes/manifests"
for p in host-local loopback ptp portmap bridge; do cp "$root/usr/lib/cni/$p" "$root/opt/cni/bin/"; done
in_root ctr oci spec \
  | jq '.hooks.createContainer[.hooks.createContainer| length] |= . + {"path": "/kind/bin/mount-product-files.sh"} | del(.process.rlimits)' \
  > "$root/etc/containerd/cri-base.json"

# services, as kind's images/base/Dockerfile does
find "$root"/lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete
rm -f "$root"/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* "$root"/etc/systemd/system/*.wants/* \
  "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}*
grep -q ReadKMsg=no "$root/etc/systemd/journald.conf" || echo ReadKMsg=no >> "$root/etc/systemd/journald.conf"
ln -sf /lib/systemd/systemd "$root/sbin/init"
in_root systemctl enable kubelet.service containerd.service undo-mount-hacks.service
in_root systemctl mask systemd-binfmt.service

rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/debconf/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
  "$root"/usr/share/{doc,man,locale,info}/* "$root"/tmp/*
tar -C "$root" --numeric-owner -c . | docker import - $BASE_IMAGE-rootfs
# (docker import's --change knows no STOPSIGNAL)
printf '%s\n' "FROM $BASE_IMAGE-rootfs" 'ENV container=docker' 'STOPSIGNAL SIGRTMIN+3' 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' \
  | DOCKER_BUILDKIT=0 docker build -q -t $BASE_IMAGE - 2> /dev/null
