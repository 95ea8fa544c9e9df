#!/bin/bash
# Makes $NODE_IMAGE, kind's node image: the base image, kubelet, kubeadm and kubectl, the preloaded images and the default manifests.
. "$(dirname "$0")/env.sh"
kind=$(kind_sources)
c=kind-build-$$
docker run -d --name $c --security-opt seccomp=unconfined --entrypoint sleep $BASE_IMAGE infinity > /dev/null
trap 'docker rm -f -v $c > /dev/null' EXIT
docker cp -q "$BIN/kube" $c:/usr/bin/kube
docker exec $c bash -c "for x in kubelet kubeadm kubectl; do ln -s kube /usr/bin/\$x; done; mkdir -p /kind/manifests; echo -n $KUBERNETES > /kind/version"

# kind's own storage manifest, with our images' names; and our pod network in place of kindnet
awk '/^const defaultStorageManifest = `/ {p=1; next} p && /^`/ {exit} p' "$kind/pkg/build/nodeimage/const_storage.go" \
  | sed -e 's|` + storageProvisionerImage + `|localhost/local-path-provisioner:'"$LOCAL_PATH_TAG"'|' -e 's|` + storageHelperImage + `|localhost/busybox:latest|' \
  | docker exec -i $c cp /dev/stdin /kind/manifests/default-storage.yaml
docker exec -i $c cp /dev/stdin /kind/manifests/default-cni.yaml < <(sed "s|@KUBERNETES@|$KUBERNETES|" "$HERE/pod-network.yaml")

docker exec -d $c bash -c 'containerd > /containerd.log 2>&1'
docker exec $c bash -c 'for i in $(seq 50); do ctr version > /dev/null 2>&1 && exit; sleep .2; done; cat /containerd.log; exit 1'
docker exec -i $c ctr --namespace=k8s.io images import --all-platforms --no-unpack - < "$WORK/images.tar"
docker exec $c bash -c 'for i in $(ctr -n k8s.io images ls -q); do ctr -n k8s.io images label $i io.cri-containerd.pinned=pinned > /dev/null; done; kill $(pidof containerd); rm -f /containerd.log'
docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' $c $NODE_IMAGE
