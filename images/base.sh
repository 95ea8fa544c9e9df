#!/usr/bin/env bash
# base.sh OUTPUT [PACKAGE...]: a root file system of Debian bookworm with Python 3.11 and the packages, as OUTPUT
# (a folder). No package manager that could install more, no compiler, no documentation; the user `eyas` (65532).
# Needs root and debootstrap. Packages come from EYAS_DEBIAN_MIRROR, or from where this machine's own come.
set -euo pipefail
out=$1; shift
cache=${EYAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/eyas}/debian
own=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources 2> /dev/null || true)
mirror=${EYAS_DEBIAN_MIRROR:-${own:-http://deb.debian.org/debian}}
include=$(IFS=,; echo "python3.11,$*")
mkdir -p "$cache"
rm -rf "$out"
debootstrap --variant=minbase --cache-dir="$cache" --include="${include%,}" bookworm "$out" "$mirror" > "$out.log" 2>&1 \
  || { tail "$out.log" >&2; exit 70; }
in_root() { chroot "$out" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONHASHSEED=0 "$@"; }

# What only installs or repairs a system has no place in an image that runs one program under a read-only root.
in_root dpkg --purge --force-depends --force-remove-essential --force-remove-protected \
  apt libapt-pkg6.0 gpgv debian-archive-keyring e2fsprogs libext2fs2 libss2 logsave > "$out.purge.log" 2>&1
ln -s /usr/bin/python3.11 "$out/usr/local/bin/python"
echo 'eyas:x:65532:65532:Eyas:/tmp:/usr/sbin/nologin' >> "$out/etc/passwd"
echo 'eyas:x:65532:' >> "$out/etc/group"
# Byte code that does not look at file times: they are all the same in an image.
in_root python3.11 -m compileall -qf --invalidation-mode unchecked-hash /usr/lib/python3.11 || true
rm -rf "$out"/var/cache/* "$out"/var/log/* "$out"/var/lib/apt "$out"/usr/share/{doc,man,locale,info,lintian}/* "$out"/tmp/* \
  "$out"/var/lib/dpkg/*-old "$out"/etc/*- "$out"/etc/{machine-id,hostname,resolv.conf} "$out"/dev/* "$out"/run/* \
  "$out"/var/cache/ldconfig/aux-cache "$out"/debootstrap "$out"/etc/ld.so.cache~
: > "$out/etc/hostname"; : > "$out/etc/resolv.conf"
