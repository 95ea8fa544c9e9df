#!/usr/bin/env bash
# packages.sh NAME...: installs those Debian packages that are missing; does nothing, and needs no rights, where all are there.
set -euo pipefail
missing=()
for package in "$@"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if ! command -v apt-get >/dev/null; then
  echo "this system has no apt-get: install the equivalents of ${missing[*]} and run again" >&2; exit 78
fi
sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo)
echo "installing ${missing[*]}" >&2
"${sudo[@]}" apt-get update -q >/dev/null
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -yq --no-install-recommends "${missing[@]}" >/dev/null
