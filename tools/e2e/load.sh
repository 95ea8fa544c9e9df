#!/usr/bin/env bash
# load.sh [IMAGE...]: puts our images into every node that does not have them yet; each node remembers which it has.
# One archive on the folder that all nodes mount: streaming it into each node through docker takes several times as long.
. "$(dirname "$0")/env.sh"
tag=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
archive=$STATE/shared/.image.tar
trap 'rm -f "$archive"' EXIT
import() {  # NODE IMAGE ID
  docker exec "$1" ctr -n k8s.io images import --all-platforms --snapshotter=overlayfs /eyas/shared/.image.tar > /dev/null
  docker exec "$1" sh -c "touch /kind/eyas-images; sed -i '\|^$2 |d' /kind/eyas-images; echo '$2 $3' >> /kind/eyas-images"
}
for name in ${*:-eyas-operator eyas-runtime eyas-train}; do
  image=$name:$tag
  id=$(docker image inspect -f '{{.Id}}' "$image")
  rm -f "$archive"
  pids=()
  for node in $(kind get nodes --name "$CLUSTER" 2> /dev/null); do
    if docker exec "$node" grep -qsx "$image $id" /kind/eyas-images; then continue; fi
    [ -e "$archive" ] || docker save "$image" -o "$archive"
    import "$node" "$image" "$id" & pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid"; done
done
