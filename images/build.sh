#!/usr/bin/env bash
# build.sh [IMAGE...]: makes the images operator, runtime and train, writes an SBOM of each, and prints their table (name,
# id, size, packages).
# No image registry and no docker build: a layer of Debian packages (base.sh), a layer of locked Python packages with one of our own
# code, and a configuration (pack.py), all with fixed times, so that the same inputs give the same image. What did
# not change is not made again.
#   EYAS_CACHE         what is kept between builds (default: ~/.cache/eyas)
#   EYAS_WHEELS        folder with a compressed CPU build of torch (default: ../shared/wheels beside the checkout)
#   EYAS_SBOM          folder for what each image is made of, in CycloneDX (default: build/sbom)
#   EYAS_TORCH         cpu or pypi (default: cpu where that wheel is at hand)
#   SOURCE_DATE_EPOCH  the time of every file in the images
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
cache=${EYAS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/eyas}
work=$cache/images
uv=${VENV:-.venv}/bin/uv
boms=${EYAS_SBOM:-build/sbom}
epoch=${SOURCE_DATE_EPOCH:-1767225600}
tag=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
wheel=("$cache"/wheels/torch-*+cpu-cp311-*.whl)
torch=${EYAS_TORCH:-$([ -e "${wheel[0]}" ] && echo cpu || echo pypi)}
libraries=(libibverbs1 librdmacm1 libnuma1 libcurl4)  # what Mooncake's wheel links
SITE=usr/local/lib/python3.11/dist-packages
mkdir -p "$work" "$cache/wheels"
say() { printf 'images: %s\n' "$*" >&2; }
key_of() { sha256sum | cut -c1-16; }
as_layer() {  # FOLDER OUTPUT: the same files give the same bytes
  tar --sort=name --mtime="@$epoch" --numeric-owner --owner=0 --group=0 --format=gnu -C "$1" -cf "$2.part" . && mv "$2.part" "$2"
}

base() {  # NAME PACKAGE...: prints the layer's file
  local name=$1 key layer; shift
  key=$( (cat images/base.sh; echo "$epoch $*") | key_of)
  layer=$work/base-$name-$key.tar
  if [ ! -e "$layer" ]; then
    local root=$work/root-$name-$key began=$SECONDS
    images/base.sh "$root" "$@"
    chroot "$root" dpkg-query -W -f '${Package} ${Version}\n' > "${layer%.tar}.packages"
    as_layer "$root" "$layer"
    rm -rf "$root" "$root".*log
    say "base $name: $((SECONDS - began)) s, $(($(stat -c %s "$layer") >> 20)) MB"
  fi
  echo "$layer"
}

lock_of() {  # IMAGE: the lock to install, with the CPU build of torch in place of the CUDA one where that is chosen
  if [ "$1" = train ] && [ "$torch" = cpu ]; then
    awk '/^[a-z]/ {keep = $0 !~ /^(cuda-|nvidia-|triton|torch==)/} keep' images/train/requirements.lock
    cat images/train/torch-cpu.lock
  else
    cat "images/$1/requirements.lock"
  fi
}

finish() {  # FOLDER OUTPUT: byte code that looks at no file times, then the layer
  find "$1" -depth -name __pycache__ -exec rm -rf {} +
  (cd "$1" && PYTHONHASHSEED=0 python3.11 -m compileall -qf --invalidation-mode unchecked-hash -s "$1" -p / "$SITE" > /dev/null) || true
  chmod -R u+rwX,go+rX,go-w "$1"
  as_layer "$1" "$2"
}

dependencies() {  # IMAGE: the locked packages; prints the layer's file
  local key layer root began=$SECONDS
  key=$( (cat images/build.sh; lock_of "$1"; echo "$epoch") | key_of)
  layer=$work/packages-$1-$key.tar
  if [ ! -e "$layer" ]; then
    root=$(mktemp -d "$work/root.XXXX")
    lock_of "$1" > "$root.lock"
    "$uv" pip install -q --target "$root/$SITE" --python-version 3.11 --python-platform x86_64-manylinux_2_28 --link-mode copy \
      --only-binary :all: --no-deps --require-hashes --find-links "$cache/wheels" -r "$root.lock"
    rm -rf "$root/$SITE"/{bin,.lock} "$root/$SITE"/*.dist-info/{direct_url.json,uv_cache.json,REQUESTED,INSTALLER,RECORD}
    finish "$root" "$layer"
    rm -rf "$root" "$root.lock"
    say "packages of $1: $((SECONDS - began)) s, $(($(stat -c %s "$layer") >> 20)) MB"
  fi
  echo "$layer"
}

code() {  # IMAGE PACKAGE...: our own packages that this image needs; prints the layer's file
  local name=$1 key layer root; shift
  key=$( (cat images/build.sh pyproject.toml; echo "$name $epoch"
    find $(for p in "$@"; do ls -d {operator,runtime}/"$p" 2> /dev/null || true; done) -type f -not -path '*/__pycache__/*' -print0 \
      | sort -z | xargs -0 sha256sum) | key_of)
  layer=$work/code-$name-$key.tar
  if [ ! -e "$layer" ]; then
    root=$(mktemp -d "$work/root.XXXX")
    "$uv" build -q --wheel --out-dir "$root.wheel" .
    "$uv" pip install -q --target "$root/$SITE" --python-version 3.11 --link-mode copy --no-deps "$root.wheel"/eyas-*.whl
    for package in eyas_operator eyas_contract eyas_runtime eyas_cli; do
      [[ " $* " == *" $package "* ]] || rm -rf "${root:?}/$SITE/$package"
    done
    rm -rf "$root/$SITE"/{bin,.lock} "$root/$SITE"/*.dist-info/{direct_url.json,uv_cache.json,REQUESTED,INSTALLER,RECORD,entry_points.txt}
    finish "$root" "$layer"
    rm -rf "$root" "$root.wheel"
  fi
  echo "$layer"
}

image() {  # IMAGE BASE-LAYER MODULE PACKAGE...
  local name=$1 base=$2 module=$3 packages own key began=$SECONDS id; shift 3
  packages=$(dependencies "$name") own=$(code "$name" "$@")
  key=$( (cat images/pack.py; echo "${base##*/} ${packages##*/} ${own##*/} $module") | key_of)
  [ "$(docker image inspect -f '{{index .Config.Labels "dev.eyas.content"}}' "eyas-$name:$tag" 2> /dev/null)" != "$key" ] || return 0
  id=$({ python3 images/pack.py --name "eyas-$name:$tag" --layer "$base" --layer "$packages" --layer "$own" --epoch "$epoch" \
    --label "dev.eyas.content=$key" --label "org.opencontainers.image.version=$tag" \
    --label "org.opencontainers.image.licenses=Apache-2.0" --label "dev.eyas.debian=$(tr ' \n' '=,' < "${base%.tar}.packages")" \
    --label "dev.eyas.python=$(lock_of "$name" | sed -n 's/^\([a-z0-9.-]*==[^ ]*\).*/\1/p' | paste -sd, -)" \
    --env PATH=/usr/local/bin:/usr/bin:/bin --env PYTHONDONTWRITEBYTECODE=1 --env PYTHONUNBUFFERED=1 --env LANG=C.UTF-8 \
    --command "[\"python\", \"-m\", \"$module\"]" | docker load -q > /dev/null; } 2>&1)
  say "eyas-$name:$tag: $((SECONDS - began)) s, $id"
  find "$work" \( -name "packages-$name-*.tar" -o -name "code-$name-*.tar" \) \
    -not -path "$packages" -not -path "$own" -delete
}

exec 9> "$work/lock"; flock 9
wanted=" ${*:-operator runtime train} "
[[ $wanted != *" operator "* ]] || image operator "$(base operator)" eyas_operator eyas_contract eyas_operator
if [[ $wanted == *" runtime "* || $wanted == *" train "* ]]; then
  with_libraries=$(base runtime "${libraries[@]}")
  [[ $wanted != *" runtime "* ]] || image runtime "$with_libraries" eyas_runtime.supervisor eyas_contract eyas_runtime
  [[ $wanted != *" train "* ]] || image train "$with_libraries" eyas_runtime.supervisor eyas_contract eyas_runtime
fi
mkdir -p "$boms"
for name in $wanted; do
  docker image inspect "eyas-$name:$tag" | "${VENV:-.venv}/bin/python" images/sbom.py "eyas-$name" > "$boms/eyas-$name-$tag.cdx.json"
done
printf '%-20s %-14s %9s  %s\n' image id size packages
for name in $wanted; do
  docker image inspect -f '{{.Id}} {{.Size}} {{index .Config.Labels "dev.eyas.debian"}} {{index .Config.Labels "dev.eyas.python"}}' "eyas-$name:$tag" \
    | awk -v name="eyas-$name:$tag" '{printf "%-20s %-14s %6d MB  %d Debian, %d Python\n", name, substr($1, 8, 12), $2 / 1e6, gsub(/,/, "", $3), gsub(/,/, "", $4) + 1}'
done
