"""The chart as Helm renders it without a cluster, for tests that make claims about the objects."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from support.kube_tools import tool

CHART = Path(__file__).resolve().parents[2] / "charts" / "eyas"
NAMESPACE = "eyas-system"
RELEASE = "eyas"
KUBERNETES = "1.34.4"
"""What Helm believes to talk to; a Helm that was built from modules takes itself for a very old one."""
Manifest = dict[str, Any]
POOL = {"mooncakePool": {"enabled": True}}
MONITORING = {
    "metrics": {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    }
}


def helm(*arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """One run of Helm with `values` as its file of values."""
    given = ["--values", "-"] if values is not None else []
    command = [str(tool("helm")), *arguments, *given]
    text = json.dumps(values) if values is not None else None
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def template(values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """`helm template` of the chart."""
    where = ("--namespace", NAMESPACE, "--kube-version", KUBERNETES)
    return helm("template", RELEASE, str(CHART), *where, values=values or {})


def rendered(values: Mapping[str, Any] | None = None) -> list[Manifest]:
    """Every object of the chart, hooks included."""
    done = template(values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refusal(values: Mapping[str, Any]) -> str:
    """What Helm says to values that the chart does not take."""
    done = template(values)
    assert done.returncode != 0, "the chart took them"
    return done.stderr


def of_kind(manifests: Iterable[Manifest], kind: str) -> dict[str, Manifest]:
    """Objects of one kind by name."""
    return {entry["metadata"]["name"]: entry for entry in manifests if entry["kind"] == kind}


def only(manifests: Iterable[Manifest], kind: str) -> Manifest:
    """The only object of a kind."""
    (found,) = of_kind(manifests, kind).values()
    return found


def pods(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """Every pod that the objects would make, as a pod: templates of Deployments and StatefulSets, and pods proper."""
    found = {}
    for entry in manifests:
        name = f"{entry['kind']}/{entry['metadata']['name']}"
        if entry["kind"] == "Pod":
            found[name] = entry
        elif entry["kind"] in ("Deployment", "StatefulSet"):
            found[name] = entry["spec"]["template"]
    return found
