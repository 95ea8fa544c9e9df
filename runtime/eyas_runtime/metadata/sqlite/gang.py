"""Theme "gang" of the SQLite store: the members of an incarnation, and whether they may go on."""

from collections.abc import Sequence
from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Closed, Fenced, UserError
from eyas_contract.exits import Exit
from eyas_contract.ids import Incarnation
from eyas_runtime.metadata.exits import describe_exit, incident_before_joining, restart_incident, unit_of
from eyas_runtime.metadata.port import GangState
from eyas_runtime.metadata.sqlite.needs import Needs

_CLEAN_CODES: Final = (Exit.DONE, Exit.TEMPORARY)


class Gang(Needs):
    """Members of the gang: who is in, who left, and whether they may go on."""

    def gang(self) -> GangState:
        gang, progress = self._newest_gang(), self._progress()
        sealed = max(self._db.integer("sealed_step"), progress.durable_step)
        if gang is None:
            return GangState(
                attempt=progress.attempt,
                incarnation=None,
                open=False,
                checkpoint_step=progress.durable_step,
                checkpoint_directory="",
                world_size=0,
                orders_given=0,
                sealed_step=sealed,
                acked_step=progress.durable_step,
                durable_step=progress.durable_step,
                checkpoint_ordered_step=0,
                ordered_step=progress.durable_step,
                ending=False,
            )
        ordered = gang.ordered_checkpoint_step
        return GangState(
            attempt=progress.attempt,
            incarnation=gang.incarnation,
            open=gang.open,
            checkpoint_step=gang.checkpoint_step,
            checkpoint_directory=gang.checkpoint_directory,
            world_size=gang.world_size,
            orders_given=gang.orders_given,
            sealed_step=sealed,
            acked_step=gang.acked_step,
            durable_step=progress.durable_step,
            checkpoint_ordered_step=ordered if gang.open and ordered > progress.durable_step else 0,
            ordered_step=gang.trained_step,
            ending=bool(gang.ending),
        )

    def join(self, attempt: int, rank: int, process: str, *, now: float) -> GangState:
        self._assert_attempt(attempt)
        member = self._db.one("member", process=process)
        if member is not None and member[1] != "open":
            raise Closed(f"incarnation {member[0]!s} of this process is closed")
        gang = self._newest_gang()
        if gang is None or not gang.open or gang.attempt != attempt:
            return msgspec.structs.replace(self.gang(), incarnation=None, open=False)
        if not 1 <= rank < gang.world_size:
            raise UserError(f"rank {rank} cannot join: ranks of this gang are 1..{gang.world_size - 1}")
        if member is not None:
            return self.gang()
        before = self._db.one("member_of_rank", number=gang.number, rank=rank)
        with self._db.transaction():
            if before is None:
                self._db.run("add_member", process=process, incarnation=gang.incarnation, rank=rank)
            else:
                message = f"rank {rank} was started again while its gang was running"
                self._close_gang(gang, klass="ChildExited", message=message, now=now)
        state = self.gang()
        return state if before is None else msgspec.structs.replace(state, incarnation=None)

    def close_incarnation(self, incarnation: Incarnation, *, klass: str, message: str, now: float) -> None:
        gang = self._newest_gang()
        if gang is None or gang.incarnation != incarnation or not gang.open:
            return
        with self._db.transaction():
            self._close_gang(gang, klass=klass, message=message, now=now)

    def report_exit(self, request: wire.ExitRequest, *, now: float) -> None:
        self._assert_attempt(request.attempt)
        gang = self._newest_gang()
        life = [self._db.one("member", process=process) for process in (request.process, *request.siblings)]
        belonged = {row[0] for row in life if row is not None}
        ended = request.time or now
        known = self._db.one("child_exit_known", unit="consumers", detected=ended) is not None
        if not (belonged or request.leaving or known):
            with self._db.transaction():
                self._note(incident_before_joining(request, ended=ended, step=self.gang().acked_step))
        if gang is None or not gang.open or gang.incarnation not in belonged:
            return
        if request.code in _CLEAN_CODES and gang.ending:
            return
        with self._db.transaction():
            if request.leaving:
                self._db.run("close_incarnations")
            else:
                self._close_gang(gang, klass="ChildExited", message=describe_exit(request), now=ended)

    def report_restart(self, request: wire.RestartRequest) -> None:
        unit, ended = unit_of(request), request.time
        self._assert_not_replaced(request)
        with self._db.transaction():
            if self._db.one("child_exit_known", unit=unit, detected=ended) is None:
                self._note(restart_incident(request, step=self.gang().acked_step))
            elif request.ready:
                self._db.run("child_replaced", unit=unit, detected=ended, replaced=request.ready)

    def closed_processes(self, attempt: int, processes: Sequence[str]) -> tuple[str, ...]:
        self._assert_attempt(attempt)
        rows = ((process, self._db.one("member", process=process)) for process in processes)
        return tuple(process for process, row in rows if row is not None and row[1] == "closed")

    def _assert_not_replaced(self, request: wire.RestartRequest) -> None:
        newest = self._db.one("holder", holder_index=request.index) if request.role == "producer" else None
        if newest is not None and request.serial < newest[0]:
            raise Fenced(f"producer {request.index}: ordinal {request.serial} was replaced by ordinal {newest[0]}")

    def _assert_attempt(self, attempt: int) -> None:
        newest = self._progress().attempt
        if attempt < newest:
            raise Fenced(f"attempt {attempt} is over: attempt {newest} has begun")
