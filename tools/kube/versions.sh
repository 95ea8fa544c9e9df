# Versions of everything that a test cluster is made of; sourced by tools/kube_tools.sh and images/kind-node/.
# The Go modules themselves are pinned in go.mod beside this file: both change together.
# shellcheck shell=bash disable=SC2034
KUBERNETES=v1.34.4
KIND=v0.30.0
KWOK=v0.7.0
# The tags that `kubeadm config images list` prints for KUBERNETES; what runs under them is built from go.mod.
ETCD_TAG=3.6.5-0
COREDNS_TAG=v1.12.1
PAUSE_TAG=3.10.1
LOCAL_PATH_TAG=v0.0.30
