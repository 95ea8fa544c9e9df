"""The two pools of pods, the services beside them, the fabric between them, and how recovery is bounded."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from eyas_operator.api.base import Model, Seconds
from eyas_operator.api.template import PodTemplate

REPLICAS_MAX: Final = 512
Replicas = Annotated[int, Field(ge=1, le=REPLICAS_MAX)]
Gpus = Annotated[int, Field(ge=0, le=64)]


class Producers(Model):
    """Pods that run the target and capture hidden states. Stateless; may be resized while the job runs."""

    replicas: Replicas = 1
    """Producer pods."""
    gpus: Gpus = 0
    """GPUs of one pod; 0: CPU."""
    template: PodTemplate = PodTemplate()


class Consumers(Model):
    """Pods that train the draft, one gang. May be resized while the job runs, at a window boundary."""

    replicas: Replicas = 1
    """Consumer pods. Several of them need checkpoints on a ReadWriteMany volume."""
    processes_per_pod: Annotated[int, Field(ge=1, le=64)] = 1
    """Ranks in one pod."""
    gpus: Gpus = 0
    """GPUs of one pod; 0: CPU."""
    template: PodTemplate = PodTemplate()


class Services(Model):
    """Pods that a job keeps for itself: its metadata service, the master of its own store, the sweeper of a shared one.

    They need no GPU. Where every node is tainted, images are private or a queue admits pods, say so here as well.
    """

    template: PodTemplate = PodTemplate()


class FabricMode(StrEnum):
    """How pods get RDMA devices."""

    NONE = "None"
    DEVICE_PLUGIN = "DevicePlugin"


class Fabric(Model):
    """RDMA devices of producers, consumers and store nodes.

    With a fabric, pods ask for IPC_LOCK: their namespace must allow it, the restricted level does not.
    """

    mode: FabricMode = FabricMode.NONE
    resource_name: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = "rdma/hca"
    """Extended resource that the device plugin offers."""
    count: Annotated[int, Field(ge=1, le=64)] = 1
    """Devices of one pod."""


class Backoff(Model):
    """Pause before a restart: none before the first, then base, 2 x base, ... up to max."""

    base_seconds: Seconds = 1
    """The second restart waits this long."""
    max_seconds: Seconds = 60
    """No restart waits longer."""


class Recovery(Model):
    """Bounds of recovery. Restarts count only while the durable step does not advance."""

    max_restarts_without_progress: Annotated[int, Field(ge=0, le=1000)] = 10
    """Restarts of one unit (a producer, the consumer gang, ...) after which the job fails."""
    backoff: Backoff = Backoff()
    restarts_in_place: Annotated[int, Field(ge=0, le=1000)] = 5
    """Restarts of a process inside its pod, without progress, before the pod itself is replaced."""
    lease_seconds: Seconds = 30
    """Term of a capture lease: how long the work of a vanished producer stays with it."""
    capture_deadline_seconds: Seconds = 600
    """Longest time one group may take to capture; doubles when a live producer exceeds it."""
    hang_seconds: Seconds = 60
    """Least time without any work after which the consumers count as hung; else ten times a step."""
    collective_timeout_seconds: Seconds = 300
    """Longest time that a rank waits for another one inside a collective."""
    stall_seconds: Seconds = 300
    """Time without a new step after which the condition Stalled is True."""
    metadata_loss_seconds: Seconds = 120
    """Time without the metadata claim's node after which the job goes on with a new, empty claim."""
    recovery_timeout_seconds: Seconds = 1800
    """Time without a new step in which a pod could not start (no node fits, no image) after which producers and
    consumers give their places back for `backoff.maxSeconds`, and then try again."""
    sweep_seconds: Seconds = 300
    """Longest time that the final sweep of the store may take."""
