"""Builders of children: pure functions from the spec, the status and an environment to manifests."""
