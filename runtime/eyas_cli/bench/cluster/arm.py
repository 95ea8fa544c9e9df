"""What both arms of `eyas bench cluster` have in common: pods of a gang, where its training is, and one round."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec

from eyas_cli.cluster.access import Access
from eyas_contract.errors import Transient
from eyas_operator.backends.kubernetes.errors import Missing
from eyas_operator.backends.kubernetes.resources import PODS
from eyas_operator.world import Pod

GANG: Final = 3
POLL_SECONDS: Final = 0.05
WAIT_SECONDS: Final = 900.0
STEPS_BETWEEN: Final = 7
"""Steps between a recovery and the next kill: not a multiple of the distance of checkpoints."""
PACE_STEPS: Final = 20
KILLS: Final = ("process", "pod", "gang")
"""SIGKILL of one rank's process; one pod deleted by force; all three."""
T = TypeVar("T")


class _Pods(msgspec.Struct):
    items: tuple[Pod, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the training is."""

    life: str
    """Changes whenever the ranks start again."""
    step: int
    """The step made last."""
    resumed: int
    """The step that this life went on from, if it is young."""


class Arm(Protocol):
    """One of the two."""

    access: Access
    selector: str
    """Labels of the gang's pods."""

    async def place(self) -> Place | None:
        """None while nobody can say."""
        ...

    async def kill_process(self, pod: str) -> None:
        """SIGKILL the rank in that pod."""
        ...


async def pods_of(arm: Arm) -> tuple[Pod, ...]:
    """The gang's pods, of all its lives."""
    raw = await arm.access.client.get(PODS.collection(arm.access.namespace), query={"labelSelector": arm.selector})
    return msgspec.json.decode(raw, type=_Pods).items


async def until(fact: Callable[[], Awaitable[T | None]], what: str) -> tuple[T, float]:
    """The first answer that is not None, and when it came. Raises `Transient` naming `what`."""
    ends = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < ends:
        try:
            found = await fact()
        except Transient:
            found = None
        if found is not None:
            return found, time.monotonic()
        await asyncio.sleep(POLL_SECONDS)
    raise Transient(f"not within {WAIT_SECONDS:g} s: {what}")


async def pace(arm: Arm) -> float:
    """Seconds of an undisturbed step."""
    first, began = await until(arm.place, "the training says where it is")
    last, ended = await until(lambda: _beyond(arm, first.step + PACE_STEPS), "some steps")
    return (ended - began) / (last.step - first.step)


async def rounds(arm: Arm, kind: str, repeats: int) -> list[dict[str, Any]]:
    """`repeats` kills, one after the other: their figures."""
    found = []
    for _ in range(repeats):
        start, _ = await until(arm.place, "the training says where it is")
        found.append(await _round(arm, kind, start.step + STEPS_BETWEEN))
    return found


async def _round(arm: Arm, kind: str, at_step: int) -> dict[str, Any]:
    await until(lambda: _whole(arm), "all pods run")
    before, _ = await until(lambda: _beyond(arm, at_step), "some steps")
    pods = _running(await pods_of(arm))
    killed = time.monotonic()
    if kind == "process":
        await arm.kill_process(pods[1].metadata.name)
    else:
        await asyncio.gather(*(_delete(arm, pod) for pod in (pods if kind == "gang" else pods[1:2])))
    running = None if kind == "process" else asyncio.create_task(_all_running(arm, pods, kind))
    after, _ = await until(lambda: _next_life(arm, before), "the ranks start again")
    _, stepped = await until(lambda: _beyond(arm, after.resumed + 1), "the next step")
    figures: dict[str, Any] = {"nextStepSeconds": stepped - killed, "stepsLost": max(0, before.step - after.resumed)}
    if running is not None:
        figures["allRunningSeconds"] = (await running) - killed
    return figures


async def _whole(arm: Arm) -> bool | None:
    return True if len(_running(await pods_of(arm))) == GANG else None


async def _beyond(arm: Arm, step: int) -> Place | None:
    place = await arm.place()
    return place if place is not None and place.step >= step else None


async def _next_life(arm: Arm, before: Place) -> Place | None:
    place = await arm.place()
    return place if place is not None and place.life != before.life else None


async def _all_running(arm: Arm, old: list[Pod], kind: str) -> float:
    """When three pods run again; after a kill of all of them, three new ones."""
    gone = {pod.metadata.uid for pod in (old if kind == "gang" else old[1:2])}

    async def fact() -> bool | None:
        alive = [pod for pod in _running(await pods_of(arm)) if pod.metadata.uid not in gone]
        return True if len(alive) >= GANG else None

    return (await until(fact, "all pods run"))[1]


def _running(pods: tuple[Pod, ...]) -> list[Pod]:
    alive = [
        pod
        for pod in pods
        if not pod.metadata.deletion_timestamp and any(it.state.running for it in pod.status.container_statuses)
    ]
    return sorted(alive, key=lambda pod: pod.metadata.name)


async def _delete(arm: Arm, pod: Pod) -> None:
    path = PODS.item(arm.access.namespace, pod.metadata.name)
    try:
        await arm.access.client.delete(path, uid=pod.metadata.uid, grace_seconds=0)
    except Missing:
        return
