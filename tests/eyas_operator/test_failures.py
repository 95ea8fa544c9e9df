"""Failure classes: from exit code, signal, termination line and pod conditions, never from logs."""

from typing import Any

import msgspec
import pytest

from eyas_contract.wire import Termination, encode
from eyas_operator.names import LABEL_ROLE
from eyas_operator.policies.failures import COUNTED, FailureClass, classify
from eyas_operator.policies.gang import SEVERITY
from eyas_operator.world import Pod


def line(code: int, klass: str, message: str) -> str:
    return encode(Termination(exit_code=code, klass=klass, message=message)).decode()


def a_pod(*, role: str = "consumer", **status: object) -> Pod:
    metadata = {"name": "p", "uid": "u", "labels": {LABEL_ROLE: role}}
    raw: dict[str, Any] = {"metadata": metadata, "spec": {"nodeName": "n1"}, "status": status}
    return msgspec.convert(raw, Pod)


def ended(code: int, *, reason: str = "Error", message: str = "", role: str = "consumer", **status: object) -> Pod:
    terminated = {"exitCode": code, "reason": reason, "message": message}
    containers = [{"name": "main", "state": {"terminated": terminated}}]
    return a_pod(role=role, phase="Failed" if code else "Succeeded", containerStatuses=containers, **status)


DISRUPTED = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
TAINTED = [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]


FULL = (
    'Usage of EmptyDir volume "tmp" exceeds the limit "20Gi". ',
    "Pod ephemeral local storage usage exceeds the total limit of containers 30Gi. ",
    'Container main exceeded its local ephemeral storage limit "30Gi". ',
)
"""As the kubelet says it."""


def evicted(message: str) -> Pod:
    containers = [{"name": "main", "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}]
    return a_pod(phase="Failed", reason="Evicted", message=message, containerStatuses=containers)


HARDWARE = (
    "what():  NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error, NCCL version 2.27.7",
    "terminate called after throwing an instance of 'c10::Error' | ncclUnhandledCudaError: Call to CUDA failed.",
    "what():  Process group watchdog thread terminated with exception: CUDA error: uncorrectable ECC error",
    "NVRM: Xid (PCI:0000:3b:00): 79 | what():  CUDA error: unspecified launch failure",
    "a | NCCL WARN mlx5_0 port error | ncclSystemError: System call failed",
    "ncclRemoteError: a remote process exited | Cuda failure 'uncorrectable ECC error encountered'",
    f"NCCL was here | {'x' * 800} | uncorrectable ECC error",
)
SOFTWARE = (
    "what():  CUDA error: device-side assert triggered | Indexing.cu:1284: Assertion `index < size` failed.",
    "what():  CUDA error: an illegal memory access was encountered",
    "double free or corruption (!prev)",
    "NCCL version 2.27.7 | RuntimeError",
    "Fatal Python error: Segmentation fault",
    "ValueError",
)
PEER = (
    "what():  NCCL error: remote process exited or there was a network error | ncclRemoteError: A call failed",
    "NCCL WARN socketProgress: Connection closed by remote peer rank-1<4000> | what():  NCCL error, mlx5",
)
"""As native code says it before it aborts, and a supervisor passes it on."""


def aborted(words: str, *, role: str = "consumer") -> Pod:
    return ended(134, message=line(134, "Crash", f"SIGABRT: {words}"), role=role)


@pytest.mark.parametrize(
    ("pod", "klass"),
    [
        pytest.param(ended(0, reason="Completed"), FailureClass.DONE, id="exit-0"),
        pytest.param(ended(1), FailureClass.CRASH, id="exit-1"),
        pytest.param(ended(134), FailureClass.CRASH, id="abort"),
        pytest.param(ended(137), FailureClass.CRASH, id="sigkill-without-oom"),
        pytest.param(ended(139), FailureClass.CRASH, id="segfault"),
        pytest.param(ended(137, reason="OOMKilled"), FailureClass.OUT_OF_MEMORY, id="oom"),
        pytest.param(ended(143), FailureClass.DISRUPTED, id="sigterm"),
        pytest.param(ended(75), FailureClass.TEMPORARY, id="exit-75"),
        pytest.param(ended(78), FailureClass.CONFIG, id="exit-78"),
        pytest.param(ended(86), FailureClass.FENCED, id="exit-86"),
        pytest.param(ended(65, role="metadata"), FailureClass.METADATA_DAMAGED, id="exit-65-of-metadata"),
        pytest.param(
            ended(65, role="metadata", conditions=DISRUPTED), FailureClass.METADATA_DAMAGED, id="damage-and-eviction"
        ),
        pytest.param(ended(65), FailureClass.CRASH, id="exit-65-of-a-rank"),
        pytest.param(
            ended(1, role="metadata", message=line(1, "Bug", "disk I/O error")), FailureClass.CRASH, id="io-error"
        ),
        pytest.param(ended(1, message=line(78, "UserError", "no model")), FailureClass.CONFIG, id="config-line"),
        pytest.param(ended(1, message=line(1, "Hang", "no work")), FailureClass.HANG, id="hang-line"),
        pytest.param(ended(137, message=line(137, "OutOfMemory", "m")), FailureClass.OUT_OF_MEMORY, id="memory-line"),
        pytest.param(
            ended(137, message=line(137, "KilledWithGang", "m")), FailureClass.KILLED_WITH_GANG, id="innocent"
        ),
        pytest.param(ended(1, message=line(1, "Closed", "gone")), FailureClass.KILLED_WITH_GANG, id="peer-gone"),
        pytest.param(
            ended(1, role="producer", message=line(1, "Closed", "gone")), FailureClass.CRASH, id="closed-without-gang"
        ),
        pytest.param(ended(1, message=line(1, "Crash", "Xid 79 on GPU 0")), FailureClass.HARDWARE, id="xid"),
        pytest.param(ended(1, message='{"klass":"\ud800"}'), FailureClass.CRASH, id="line-that-is-no-text"),
        pytest.param(ended(1, message="uncorrectable ECC error"), FailureClass.HARDWARE, id="ecc-in-tail"),
        *(pytest.param(aborted(text), FailureClass.HARDWARE, id=f"hardware-{n}") for n, text in enumerate(HARDWARE)),
        *(pytest.param(aborted(text), FailureClass.CRASH, id=f"software-{n}") for n, text in enumerate(SOFTWARE)),
        *(pytest.param(aborted(text), FailureClass.KILLED_WITH_GANG, id=f"peer-{n}") for n, text in enumerate(PEER)),
        pytest.param(aborted(PEER[0], role="producer"), FailureClass.CRASH, id="peer-of-no-gang"),
        pytest.param(ended(137, conditions=DISRUPTED), FailureClass.DISRUPTED, id="preempted"),
        pytest.param(ended(78, conditions=DISRUPTED), FailureClass.CONFIG, id="config-beats-disruption"),
        pytest.param(ended(137, conditions=TAINTED), FailureClass.NODE_LOST, id="taint"),
        pytest.param(a_pod(phase="Failed", reason="Evicted"), FailureClass.DISRUPTED, id="evicted"),
        pytest.param(evicted("The node was low on resource: memory. "), FailureClass.DISRUPTED, id="node-pressure"),
        *(pytest.param(evicted(text), FailureClass.OUT_OF_STORAGE, id=f"storage-{n}") for n, text in enumerate(FULL)),
        pytest.param(a_pod(phase="Unknown"), FailureClass.NODE_LOST, id="unknown"),
        pytest.param(a_pod(phase="Failed", reason="NodeLost"), FailureClass.NODE_LOST, id="node-lost"),
        pytest.param(a_pod(phase="Failed"), FailureClass.CRASH, id="failed-without-status"),
    ],
)
def test_class_of(pod: Pod, klass: FailureClass) -> None:
    assert classify(pod).klass is klass


def test_only_the_jobs_own_faults_count() -> None:
    assert {klass.value for klass in COUNTED} == {
        "OutOfMemory", "OutOfStorage", "Hang", "Hardware", "EarlyExit", "KilledWithGang", "Crash",
    }  # fmt: skip


def test_the_message_of_a_pod_that_wrote_too_much_names_the_limit() -> None:
    assert classify(evicted(FULL[0])).message == FULL[0].strip()


def test_every_class_of_an_end_has_a_place_in_the_gang() -> None:
    told_otherwise = {"EarlyExit", "MetadataLost", "MetadataDamaged", "RecoveryTimeout"}
    assert {klass.value for klass in SEVERITY} == {klass.value for klass in FailureClass} - told_otherwise


def test_message_is_the_supervisors_sentence_and_bounded() -> None:
    assert classify(ended(78, message=line(78, "UserError", "no model"))).message == "no model"
    assert classify(ended(1, message="x" * 5000)).message.startswith("exit code 1 (Error): xxx")
    assert len(classify(ended(1, message="x" * 5000)).message) <= 512


def test_what_speaks_of_hardware_is_shown_wherever_it_stands() -> None:
    shown = classify(aborted(HARDWARE[-1])).message
    assert shown.startswith("SIGABRT: NCCL was here")
    assert shown.endswith("uncorrectable ECC error")
    assert len(shown) <= 512


def test_last_line_of_several_is_the_termination() -> None:
    text = "noise\n" + line(1, "Crash", "first") + "\n" + line(1, "Hang", "second") + "\n"
    assert classify(ended(1, message=text)).klass is FailureClass.HANG
