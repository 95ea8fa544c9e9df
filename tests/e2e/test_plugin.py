"""`kubectl eyas` and `helm test` as a person runs them, on a job that is hurt by the plugin and recovers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import yaml

from support.cluster_drill import Weights, drill, quick
from support.cluster_operator import RELEASE, helm
from support.kubectl import NAMESPACE, Kubectl, kubeconfig
from support.pod_drill import drilled, replaced, seen

pytestmark = pytest.mark.e2e
NAME: Final = "plugin"
PNG: Final = b"\x89PNG\r\n"


def eyas(command: str, *arguments: str) -> str:
    """What `kubectl eyas` printed; it must have succeeded."""
    where = () if command == "render" else ("--kubeconfig", str(kubeconfig()), "--namespace", NAMESPACE)
    program = Path(sys.executable).parent / "kubectl-eyas"
    done = subprocess.run(
        [str(program), command, *arguments, *where], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_command_of_the_plugin_works_on_a_job_that_it_kills_itself(
    kubectl: Kubectl, undisturbed: Weights, tmp_path: Path
) -> None:
    """Catches: a tunnel or an exec that only fake sockets understand, and a screen that says less than the status."""
    weights = undisturbed(quick())
    curve = tmp_path / "curve.png"
    with drilled(kubectl, drill(NAME, seconds=0.6)) as job:
        job.training()
        assert "producer" in eyas("status", NAME)
        before = job.pod("consumer")
        eyas("kill", NAME, "producer", "--signal", "KILL")
        eyas("kill", NAME, "consumer")
        job.attempt(2)
        # The tunnel to the metadata pod: numbers that no status has.
        seen(lambda: _drawn(curve), "a curve is drawn")
        said = eyas("logs", NAME, "metadata").splitlines()
        assert said[0].startswith("metadata-e1-o1 "), said
        status = job.recovered(weights)
    replaced(status, "consumers", "PodDeleted")
    assert before.endswith("-a1")
    assert [it["unit"] for it in status["incidents"] if it["class"] == "ChildExited"] == ["producer-0"]


def _drawn(curve: Path) -> bool:
    try:
        eyas("plot", NAME, "-o", str(curve))
    except AssertionError:
        # Nothing to draw before the first step that is acknowledged.
        return False
    return curve.read_bytes().startswith(PNG)


def test_the_plugin_tells_the_end_of_a_job_as_its_status_does(kubectl: Kubectl) -> None:
    name = "plugin-told"
    with drilled(kubectl, drill(name, seconds=0.02)) as job:
        job.wait("Complete")
        status = job.status()
        assert json.loads(eyas("status", name, "--json"))["result"] == status["result"]
        assert "Complete" in eyas("status", name)
        assert "Completed" in eyas("events", name)
        report = eyas("doctor", name).splitlines()
    assert {line.split()[1] for line in report} >= {"user", "clock", "definition", "operator", "claim"}
    # The class of the test cluster keeps a volume on one node, of which people are warned.
    assert {line.split()[0] for line in report} == {"ok", "warning"}, report


def test_render_prints_objects_that_the_api_server_takes(kubectl: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    body = drill("plugin-rendered")
    body["metadata"]["namespace"] = NAMESPACE
    file.write_text(yaml.safe_dump(body))
    rendered = eyas("render", str(file))
    kinds = [entry["kind"] for entry in yaml.safe_load_all(rendered)]
    assert {"Pod", "Service", "NetworkPolicy", "PersistentVolumeClaim", "ConfigMap"} <= set(kinds)
    kubectl.run("apply", "--dry-run=server", "-f", "-", given=rendered)


def test_helm_test_finds_the_operator_answering() -> None:
    assert "Succeeded" in helm("test", RELEASE, "--timeout", "120s")
