#!/usr/bin/env bash
# Installs or upgrades the chart into the tests' namespace and waits until the operator is ready.
. "$(dirname "$0")/env.sh"
tag=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
# A new image under the old tag is no change for a Deployment: the annotation makes it one.
helm upgrade --install eyas charts/eyas --namespace "$NAMESPACE" --wait --timeout 180s \
  --set-string "podAnnotations.image=$(docker image inspect -f '{{.Id}}' "eyas-operator:$tag")" > "$STATE/helm.log" 2>&1 \
  || { tail -n 20 "$STATE/helm.log" >&2; kubectl -n "$NAMESPACE" get pods,events >&2 || true; exit 70; }
