#!/usr/bin/env bash
# Puts our three images into every node that does not have them yet; each node remembers which it has.
. "$(dirname "$0")/env.sh"
tag=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
for name in ${*:-eyas-operator eyas-runtime eyas-train}; do
  image=$name:$tag
  id=$(docker image inspect -f '{{.Id}}' "$image")
  for node in $(kind get nodes --name "$CLUSTER" 2> /dev/null); do
    if docker exec "$node" grep -qsx "$image $id" /kind/eyas-images; then continue; fi
    docker save "$image" | docker exec -i "$node" ctr -n k8s.io images import --all-platforms --snapshotter=overlayfs - > /dev/null
    docker exec "$node" sh -c "touch /kind/eyas-images; sed -i '\|^$image |d' /kind/eyas-images; echo '$image $id' >> /kind/eyas-images"
  done
done
