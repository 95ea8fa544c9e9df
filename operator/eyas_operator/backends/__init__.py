"""Adapters of the `Cluster` port: the Kubernetes API and this machine."""
