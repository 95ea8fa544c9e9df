#!/usr/bin/env bash
# Sets up everything that the demo and the tests need: Debian libraries, a virtual environment, pinned packages.
# Safe to repeat: a stamp keyed by the content of the requirements makes the second call a matter of milliseconds.
#   VENV         the virtual environment (default: .venv in the checkout)
#   EYAS_CACHE   what may be kept between checkouts (default: ~/.cache/eyas)
#   EYAS_WHEELS  a folder with a compressed CPU build of torch; PyPI's torch is taken where there is none
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
cache=${EYAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/eyas}
wheels=${EYAS_WHEELS:-../shared/wheels}
torch=2.13.0
stamp=$venv/eyas-setup-$(cat pyproject.toml constraints.txt tools/setup.sh | sha256sum | cut -c1-16)
[ -e "$stamp" ] && exit 0

say() { printf 'setup: %s\n' "$*"; }

# Mooncake's wheel links these; zstd unpacks the CPU build of torch where it is at hand.
packages=(libibverbs1 librdmacm1 libnuma1 libcurl4)
[ -e "$wheels" ] && packages+=(zstd)
tools/packages.sh "${packages[@]}"

python=$(command -v python3.11 || command -v python3) || { say "Python 3.11 or newer is needed"; exit 78; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { say "$python is older than 3.11"; exit 78; }
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
[ -x "$venv/bin/uv" ] || "$venv/bin/pip" install -q --disable-pip-version-check 'uv>=0.9,<1'

# The CPU build spares 4 GB of CUDA packages that a machine without a GPU never loads.
links=()
for archive in "$wheels"/torch-"$torch"+cpu-*.whl.zst; do
  [ -e "$archive" ] || continue
  wheel=$cache/wheels/$(basename "$archive" .zst)
  if [ ! -e "$wheel" ]; then
    mkdir -p "$cache/wheels"
    zstd -d --long=27 -q "$archive" -o "$wheel.$$" && mv "$wheel.$$" "$wheel"
  fi
  links=(--find-links "$cache/wheels")
done
say "installing the pinned packages into $venv"
"$venv/bin/uv" pip install -q --python "$venv/bin/python" "${links[@]}" -c constraints.txt "torch==$torch" -e '.[dev]'
rm -f "$venv"/eyas-setup-*
touch "$stamp"
