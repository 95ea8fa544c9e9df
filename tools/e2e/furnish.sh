#!/usr/bin/env bash
# What the cluster has beside nodes: fake GPUs and RDMA devices, a storage class that several nodes share, the namespace
# under Pod Security "restricted", and the quickstart's claims. Repeating it changes nothing.
. "$(dirname "$0")/env.sh"
patch=()
for place in capacity allocatable; do  # allocatable as well: the kubelet copies it, but up to ten seconds later
  for resource in nvidia.com~1gpu rdma~1hca; do patch+=("{\"op\":\"add\",\"path\":\"/status/$place/$resource\",\"value\":\"8\"}"); done
done
for node in $(kubectl get nodes -o name); do
  kubectl patch "$node" --subresource=status --type=json -p "[$(IFS=,; echo "${patch[*]}")]" > /dev/null
done
kubectl -n local-path-storage patch configmap local-path-config --type=merge --patch-file "$HERE/local-path.yaml" > /dev/null
kubectl apply --server-side -f "$HERE/furniture.yaml" > /dev/null
