"""Every failure class that a pod can show: what it is called, whether it counts, and when the job gives up.

Each test names, after "Catches:", the change of ours that it exists to notice.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from support.kubectl import Kubectl, Refused
from support.pod_drill import STEPS, Drill, drill, drilled, gated, replaced, seen

pytestmark = pytest.mark.e2e
Weights = Callable[[dict[str, Any]], str]

WRONG_IMAGE = "eyas-runtime:no-such-tag"
EAT_MEMORY = (
    "import json, os\n"
    "child = json.load(open(os.environ['EYAS_POD_DIRECTORY'] + '/children.json'))[0]['pid']\n"
    "open(f'/proc/{child}/oom_score_adj', 'w').write('1000')\n"
    "held = []\n"
    "while os.path.exists(f'/proc/{child}'):\n"
    "    held.append(b'x' * 2**22)\n"
)
"""Eats what the container may have. The kernel takes the child first, or all at once where cgroups are of version 2.

Only under a pod whose requests are its limits: the others begin with a score of nearly 1000, and the eater is larger.
"""
TELL = (
    "import json, os\n"
    "line = {'exit_code': 1, 'klass': 'Crash', 'message': 'NVRM: Xid 79, GPU has fallen off the bus'}\n"
    "print(json.dumps(line), file=open(os.environ['EYAS_POD_DIRECTORY'] + '/termination-0.json', 'w'))\n"
)
"""What a rank writes about its own end, written for it."""
ABORT = (
    "import json, os, signal\n"
    "child = json.load(open(os.environ['EYAS_POD_DIRECTORY'] + '/children.json'))[0]['pid']\n"
    "with open(f'/proc/{child}/fd/2', 'w') as stderr:\n"
    "    stderr.write('terminate called after throwing an instance of c10::DistBackendError\\n')\n"
    "    stderr.write('  what():  NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error\\n')\n"
    "os.kill(child, signal.SIGABRT)\n"
)
"""What native code does in a rank: it says why on its stderr, and aborts."""


@pytest.fixture(scope="session")
def weights(undisturbed: Weights) -> str:
    """What every drill must end with."""
    return undisturbed(drill("undisturbed"))


def _with_container(body: dict[str, Any], role: str, **container: object) -> dict[str, Any]:
    template = body["spec"][role]["template"]["spec"]["containers"][0]
    body["spec"][role]["template"] = {"spec": {"containers": [template | container]}}
    return body


def test_a_pod_killed_by_the_kernel_for_memory_is_counted_once_and_replaced(kubectl: Kubectl, weights: str) -> None:
    """Catches: an OOM kill taken for a crash or a disruption, and a job that gives up at the first one."""
    share = {"cpu": "1", "memory": "256Mi"}
    body = drill("oom-once", **{"recovery.restartsInPlace": 0})
    body = _with_container(body, "producers", resources={"requests": share, "limits": share})
    with drilled(kubectl, body) as job:
        pod = job.training().pod("producer")
        _eat_memory(job, pod)
        status = job.recovered(weights)
    incident = replaced(status, "producer-0", "OutOfMemory")
    assert incident["counted"]
    assert status["restarts"] == 1


def _eat_memory(job: Drill, pod: str) -> None:
    with contextlib.suppress(Refused):  # The eater ends with the container.
        job.kubectl.run("exec", pod, "--", "python", "-c", EAT_MEMORY)


def test_memory_that_runs_out_twice_without_progress_fails_the_job(kubectl: Kubectl) -> None:
    """Catches: an endless loop of OOM kills, and pods (GPUs!) that a failed job keeps."""
    limits = {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"memory": "30Mi"}}
    changes = {"consumers.gpus": 1, "consumers.replicas": 1, "recovery.restartsInPlace": 0}
    body = _with_container(drill("oom-twice", **changes), "consumers", resources=limits)
    with drilled(kubectl, body) as job:
        failed = job.failed()
        status = job.status()
    assert failed["reason"] == "OutOfMemory"
    assert "raise its memory limit" in failed["message"]
    # The runtime may tell of the container's end before it tells why: such an end is a crash.
    classes = [it["class"] for it in job_incidents(status)]
    assert classes.count("OutOfMemory") == 2
    assert set(classes) <= {"OutOfMemory", "Crash"}


def job_incidents(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Incidents that the operator wrote."""
    return [it for it in status["incidents"] if it["source"] == "Operator"]


def test_an_image_that_cannot_be_pulled_is_waiting_and_a_corrected_spec_repairs_it(
    kubectl: Kubectl, weights: str
) -> None:
    """Catches: image pulls that count as crashes, and a pod that waits for ever although its template was repaired."""
    right = drill("image-repaired")
    wrong = _with_container(drill("image-repaired"), "consumers", image=WRONG_IMAGE)
    with drilled(kubectl, wrong) as job:
        found = seen(lambda: _waiting_for_image(job), "ConsumersReady says that the image is waited for")
        assert found["status"] == "False"
        kubectl.apply(right, "--force-conflicts")
        status = job.recovered(weights)
    assert all(unit["restartsWithoutProgress"] == 0 for unit in status["units"])
    assert not any(it["counted"] for it in status["incidents"])


def _waiting_for_image(job: Drill) -> dict[str, Any]:
    found = job.condition("ConsumersReady")
    waits = found.get("reason") == "PodsWaiting" and "mage" in found["message"] and WRONG_IMAGE in found["message"]
    return found if waits else {}


def test_an_image_that_never_comes_fails_the_job_at_its_startup_deadline(kubectl: Kubectl) -> None:
    """Catches: a job that waits for ever with its GPUs, and a verdict that does not say what was waited for."""
    body = drill("image-never", startupDeadlineSeconds=40, **{"consumers.gpus": 1})
    with drilled(kubectl, _with_container(body, "consumers", image=WRONG_IMAGE)) as job:
        failed = job.failed()
        status = job.status()
    assert failed["reason"] == "StartupDeadlineExceeded"
    assert WRONG_IMAGE in failed["message"]
    assert (status["attempt"], status["restarts"], job_incidents(status)) == (1, 0, [])


def test_a_configuration_error_fails_the_job_at_once_with_its_sentence(kubectl: Kubectl) -> None:
    """Catches: exit 78 retried, and a reason that is only in a log of a pod that is gone."""
    body = drill("config-error")
    template = body["spec"]["consumers"]["template"]["spec"]["containers"][0]
    entries = [{"name": "EYAS_TRAINER", "value": "nonsense"}]
    with drilled(kubectl, _with_container(body, "consumers", env=entries, image=template["image"])) as job:
        failed = job.failed()
        status = job.status()
    assert failed["reason"] == "ConfigError"
    assert "EYAS_TRAINER is 'nonsense'; it must be eagle3 or fake" in failed["message"]
    assert (status["attempt"], status["restarts"]) == (1, 0)


def test_a_process_that_asks_for_a_restart_gets_one_that_does_not_count(kubectl: Kubectl, weights: str) -> None:
    """Catches: exit 75 counted as a crash, or taken for the end of the work."""
    with drilled(kubectl, drill("exit-75")) as job:
        job.training().signal(job.pod("producer"), "SIGTERM")
        status = job.recovered(weights)
    incident = replaced(status, "producer-0", "Temporary")
    assert not incident["counted"]
    assert status["restarts"] == 1


def test_broken_hardware_in_the_last_words_strikes_the_node(kubectl: Kubectl, weights: str) -> None:
    """Catches: a termination message that nobody reads, and a node that is never avoided."""
    with drilled(kubectl, drill("hardware", **{"recovery.restartsInPlace": 0})) as job:
        pod = job.training().pod("consumer")
        node = kubectl.get("pod", pod)["spec"]["nodeName"]
        kubectl.run("exec", pod, "--", "python", "-c", TELL)
        job.signal(pod)
        status = job.recovered(weights)
    incident = replaced(status, "consumers", "Hardware")
    assert (incident["counted"], incident["node"]) == (True, node)
    assert [(it["node"], it["strikes"]) for it in status["strikes"]] == [(node, 1)]


def test_a_native_abort_that_speaks_of_hardware_on_stderr_strikes_the_node(kubectl: Kubectl, weights: str) -> None:
    """Catches: a supervisor that does not read its children's stderr, or whose words the operator does not know."""
    with drilled(kubectl, drill("native-abort", **{"recovery.restartsInPlace": 0})) as job:
        pod = job.training().pod("consumer")
        node = kubectl.get("pod", pod)["spec"]["nodeName"]
        with contextlib.suppress(Refused):  # The container may end before the answer.
            kubectl.run("exec", pod, "--", "python", "-c", ABORT)
        status = job.recovered(weights)
    incident = replaced(status, "consumers", "Hardware")
    assert (incident["counted"], incident["node"]) == (True, node)
    assert "SIGABRT: terminate called" in incident["message"]
    assert "NCCL error in: ProcessGroupNCCL.cpp" in incident["message"]
    assert [(it["node"], it["strikes"]) for it in status["strikes"]] == [(node, 1)]


def test_a_rank_that_stands_still_is_a_hang_and_not_the_end(kubectl: Kubectl, weights: str) -> None:
    """Catches: a hang that nobody notices, and a stopped process that wakes up after its successor began."""
    with drilled(kubectl, drill("hang", **{"recovery.hangSeconds": 5})) as job:
        job.training().signal(job.pod("consumer", 1), "SIGSTOP")
        status = job.recovered(weights)
    hangs = [it for it in status["incidents"] if it["class"] == "Hang"]
    assert [it["outcome"] for it in hangs] == ["Recovered"]
    assert status["attempt"] == 1, "the ladder begins with the process"


def test_one_failure_more_than_the_budget_fails_the_job_and_frees_its_gpus(kubectl: Kubectl) -> None:
    """Catches: a budget that is read nowhere, one that forgets, and a half-dead job that holds GPUs."""
    changes = {
        "recovery.maxRestartsWithoutProgress": 2,
        "recovery.restartsInPlace": 0,
        "consumers.gpus": 1,
    }
    with gated(kubectl, "budget", "producers", **changes) as (job, _release):
        for attempt in (1, 2, 3):
            job.signal(job.pod("consumer", attempt % 2, number=attempt))
        failed = job.failed()
        status = job.status()
    assert failed["reason"] == "RestartBudgetExhausted"
    assert "consumers failed 3 times without progress; the last time: Crash" in failed["message"]
    assert [it["counted"] for it in job_incidents(status)] == [True] * 3
    assert status["attempt"] <= 4


def test_a_gang_that_fits_on_no_node_waits_whole_and_then_trains(kubectl: Kubectl, weights: str) -> None:
    """Catches: members created one by one (a gang scheduler waits for all), and waiting that counts as failing."""
    with gated(kubectl, "unschedulable", "consumers", **{"consumers.replicas": 3}) as (job, release):
        waits = seen(lambda: _unschedulable(job), "ConsumersReady says that no node fits")
        assert waits["status"] == "False"
        assert len(job.pods("consumer")) == 3
        assert job.status()["restarts"] == 0
        release()
        status = job.recovered(weights)
    assert (status["attempt"], status["restarts"], status["incidents"]) == (1, 0, [])
    assert status["result"]["steps"] == STEPS


def _unschedulable(job: Drill) -> dict[str, Any]:
    found = job.condition("ConsumersReady")
    waits = found.get("reason") == "PodsWaiting" and "Unschedulable" in found["message"]
    return found if waits else {}
