"""The gang of the in-memory store: members of an incarnation, exits, restarts of other roles."""

from collections.abc import Sequence

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Closed, Fenced, UserError
from eyas_contract.ids import Incarnation
from eyas_runtime.metadata.exits import describe_exit, incident_before_joining, restart_incident, unit_of
from eyas_runtime.metadata.fake import incidents
from eyas_runtime.metadata.fake.capture import FakeCapture
from eyas_runtime.metadata.port import GangState


class FakeGang(FakeCapture):
    """Members of the gang."""

    def gang(self) -> GangState:
        gang, durable = self._newest_gang(), self._durable_step
        sealed = max([durable, *self._windows])
        if gang is None:
            return GangState(
                attempt=self._attempt,
                incarnation=None,
                open=False,
                checkpoint_step=durable,
                checkpoint_directory="",
                world_size=0,
                orders_given=0,
                sealed_step=sealed,
                acked_step=durable,
                durable_step=durable,
                checkpoint_ordered_step=0,
                ordered_step=durable,
                ending=False,
            )
        pending = gang.open and gang.ordered_checkpoint_step > durable
        return GangState(
            attempt=self._attempt,
            incarnation=gang.incarnation,
            open=gang.open,
            checkpoint_step=gang.checkpoint_step,
            checkpoint_directory=gang.checkpoint_directory,
            world_size=gang.world_size,
            orders_given=len(gang.orders),
            sealed_step=sealed,
            acked_step=gang.acked_step,
            durable_step=durable,
            checkpoint_ordered_step=gang.ordered_checkpoint_step if pending else 0,
            ordered_step=gang.trained_step,
            ending=gang.ending,
        )

    def join(self, attempt: int, rank: int, process: str, *, now: float) -> GangState:
        self._assert_attempt(attempt)
        member = self._members.get(process)
        if member is not None and not member[0].open:
            raise Closed(f"incarnation {member[0].incarnation} of this process is closed")
        gang = self._newest_gang()
        if gang is None or not gang.open or gang.attempt != attempt:
            return msgspec.structs.replace(self.gang(), incarnation=None, open=False)
        if not 1 <= rank < gang.world_size:
            raise UserError(f"rank {rank} cannot join: ranks of this gang are 1..{gang.world_size - 1}")
        if member is None and any(other is gang and taken == rank for other, taken in self._members.values()):
            message = f"rank {rank} was started again while its gang was running"
            self._close_gang(gang, klass="ChildExited", message=message, now=now)
            return msgspec.structs.replace(self.gang(), incarnation=None)
        self._members.setdefault(process, (gang, rank))
        return self.gang()

    def close_incarnation(self, incarnation: Incarnation, *, klass: str, message: str, now: float) -> None:
        gang = self._newest_gang()
        if gang is not None and gang.incarnation == incarnation and gang.open:
            self._close_gang(gang, klass=klass, message=message, now=now)

    def report_exit(self, request: wire.ExitRequest, *, now: float) -> None:
        self._assert_attempt(request.attempt)
        gang, ended = self._newest_gang(), request.time or now
        life = [self._members.get(process) for process in (request.process, *request.siblings)]
        belonged = [row[0] for row in life if row is not None]
        known = incidents.child_exit_known(self._incidents, "consumers", ended)
        if not (belonged or request.leaving or known):
            self._note(incident_before_joining(request, ended=ended, step=self.gang().acked_step))
        if gang is None or not gang.open or all(other is not gang for other in belonged):
            return
        if request.code in (0, 75) and gang.ending:
            return
        if request.leaving:
            gang.open = False
        else:
            self._close_gang(gang, klass="ChildExited", message=describe_exit(request), now=ended)

    def report_restart(self, request: wire.RestartRequest) -> None:
        unit = unit_of(request)
        newest = self._holders.get(request.index) if request.role == "producer" else None
        if newest is not None and request.serial < newest[0].ordinal:
            raise Fenced(f"producer {request.index}: ordinal {request.serial} was replaced")
        if not incidents.child_exit_known(self._incidents, unit, request.time):
            self._note(restart_incident(request, step=self.gang().acked_step))
        self._incidents = incidents.child_replaced(self._incidents, unit, request.time, request.ready)

    def closed_processes(self, attempt: int, processes: Sequence[str]) -> tuple[str, ...]:
        self._assert_attempt(attempt)
        return tuple(p for p in processes if p in self._members and not self._members[p][0].open)
