"""The supervisor's loop: one thread that starts, reaps and restarts, woken by signals, timers and the gang's threads.

Every child is started from this thread, because the parent-death signal follows the thread. All waiting is in one
place and every effect is idempotent, so that the order in which things happen at the same moment does not matter.
"""

import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType
from typing import Final

from eyas_contract.errors import EyasError, Fenced
from eyas_contract.exits import Exit, describe
from eyas_contract.wire import Termination
from eyas_runtime.process import one_sentence, write_termination
from eyas_runtime.supervisor.child_stderr import ChildStderr
from eyas_runtime.supervisor.children import Children, Started
from eyas_runtime.supervisor.gang import Closed, GangLink, LifeEnd, NothingToSave, Refused, Reported
from eyas_runtime.supervisor.last_words import MEMORY_SENTENCE, last_words, reason
from eyas_runtime.supervisor.log_writer import LogWriter
from eyas_runtime.supervisor.memory_kills import MemoryKills
from eyas_runtime.supervisor.orphans import bury_orphans, reap_all
from eyas_runtime.supervisor.policy import (
    Budget,
    Cause,
    Ended,
    Next,
    Progress,
    Verdict,
    ends_siblings_at_once,
    judge,
)
from eyas_runtime.supervisor.ready_port import ReadyPort
from eyas_runtime.supervisor.restarts import LOOK_SECONDS, RestartLink
from eyas_runtime.supervisor.settings import Settings
from eyas_runtime.supervisor.spares import SETTLE_SECONDS

LEAVE_TOGETHER_SECONDS: Final = 60.0
"""How long ranks may go on after a sibling left with 0 or 75; the service's hang lease is the finer measure."""
KILL_MARGIN_SECONDS: Final = 2.0
"""We kill so long before the grace period ends, so that the exit code and the termination line are still ours."""


class Supervisor:
    """One pod's supervisor; `run` returns the exit code of the container."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._log = LogWriter()
        self._stderr = ChildStderr(self._log)
        self._children = Children(settings, environ, self._stderr)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._gang = GangLink(settings.gang, self._wake) if settings.gang else None
        self._restarts = RestartLink(settings.reports)
        self._memory_kills = MemoryKills()
        self._ready_port = ReadyPort(settings.ready_address)
        recovery = settings.recovery
        self._budget = Budget(
            restarts_max=recovery.restarts_in_place,
            base_seconds=recovery.backoff_base_seconds,
            max_seconds=recovery.backoff_max_seconds,
        )
        self._progress = Progress()
        self._life = 0
        self._life_since = 0.0
        self._ends: list[Ended] = []
        self._killed: set[int] = set()
        self._stopping = False
        self._stop_asked = False
        self._kill_at: float | None = None
        self._restart_at: float | None = None
        self._spares_at: float | None = None
        self._was_ready = False
        self._reporting: Verdict | None = None
        self._refusal: EyasError | None = None
        self._code: int | None = None

    def run(self) -> int:
        """Supervise until the pod has nothing left to do."""
        self._stderr.start()
        try:
            return self._run()
        finally:
            self._log.flush()

    def _run(self) -> int:
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, self._ask_stop)
        signal.signal(signal.SIGINT, self._ask_stop)
        self._start_life()
        while self._code is None:
            self._sleep()
            self._on_stop()
            self._on_ends()
            self._on_gang()
            self._on_time()
            self._ready_port.follow(ready=self._children.ready)
        self._children.leave()
        return self._code

    def _ask_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_asked = True

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"w")

    def _sleep(self) -> None:
        now = time.monotonic()
        pauses = [at - now for at in (self._kill_at, self._restart_at, self._spares_at) if at is not None]
        restarts = LOOK_SECONDS if self._restarts.waiting and self._children.live else None
        pauses += [look for look in (restarts, self._ready_port.look_seconds) if look is not None]
        timeout = max(0.0, min(pauses)) if pauses else None
        select.select([self._wake_read, *self._ready_port.descriptors], [], [], timeout)
        self._ready_port.hang_up()
        with suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass

    # --- lives ---

    def _start_life(self) -> None:
        self._life += 1
        self._ends, self._killed = [], set()
        self._memory_kills.more()
        self._kill_at = self._restart_at = self._reporting = None
        self._life_since = time.monotonic()
        self._children.start_life()
        self._spares_at = self._life_since + SETTLE_SECONDS
        if self._gang:
            self._gang.watch([child.process for child in self._children.live.values()])

    def _on_ends(self) -> None:
        # All that are reaped are forgotten first: the end of one may kill the others by their pids.
        every = reap_all()
        self._children.spares_reaped({pid for pid, _code in every})
        reaped = [(pid, code) for pid, code in every if pid in self._children.live]
        ended = self._children.ended([pid for pid, _code in reaped])
        for child, (_pid, code) in zip(ended, reaped, strict=True):
            self._ended(child, code)
        if not self._children.live and self._ends:
            self._life_over()

    def _ended(self, child: Started, code: int) -> None:
        cause = Cause.KILLED if code == -signal.SIGKILL and child.pid in self._killed else Cause.OWN
        starved = cause is Cause.OWN and code == -signal.SIGKILL and self._memory_kills.more()
        words = self._children.stderr_words(child.pid)
        if code == -signal.SIGKILL:
            # It could not say anything about that: what it wrote before was about something else.
            words = ""
        self._ends.append(
            Ended(slot=child.slot, process=child.process, code=code, cause=cause, out_of_memory=starved, words=words)
        )
        if cause is Cause.KILLED:
            return
        self._say(f"process {child.slot} ended: {MEMORY_SENTENCE if starved else describe(code)}")
        if self._stopping and self._gang is None:
            return
        if ends_siblings_at_once(code):
            self._kill_rest()
        elif self._kill_at is None:
            self._kill_at = time.monotonic() + LEAVE_TOGETHER_SECONDS

    def _kill_rest(self) -> None:
        self._killed.update(self._children.live)
        for pid in self._children.live:
            os.kill(pid, signal.SIGKILL)

    def _life_over(self) -> None:
        ends, self._ends, self._kill_at = self._ends, [], None
        self._children.life_over()
        bury_orphans(self._children.spare_pids)
        verdict = judge(ends, stopping=self._stopping, gang=self._gang is not None)
        if self._gang is None or self._refusal or verdict.code == Exit.DONE:
            self._decide(verdict, durable_step=None)
            return
        # 86 is the service's to say for this pod: a rank may have met it through an older incarnation only.
        leaving = verdict.next is Next.LEAVE and verdict.code != Exit.FENCED
        self._reporting = verdict
        life = LifeEnd(number=self._life, time=time.time(), ends=tuple(ends))
        self._gang.report(life, self._reason(verdict), leaving=leaving)

    def _decide(self, verdict: Verdict, *, durable_step: int | None) -> None:
        if self._refusal:
            self._leave(int(self._refusal.exit_code), type(self._refusal).__name__, str(self._refusal))
        elif verdict.next is Next.LEAVE:
            self._leave_with(verdict, "")
        elif self._stopping:
            self._leave(int(Exit.TEMPORARY), "Stopped", "asked to stop while nothing was running")
        else:
            self._restart_or_give_up(verdict, durable_step)

    def _restart_or_give_up(self, verdict: Verdict, durable_step: int | None) -> None:
        uptime = time.monotonic() - self._life_since
        self._progress, moved = self._progress.advance(durable_step=durable_step, uptime_seconds=uptime)
        spent = self._budget.spend(progressed=moved)
        if spent is None:
            self._leave_with(verdict, f"{self._budget.used} restarts in place without progress; last: ")
            return
        self._budget, pause = spent
        self._restarts.ended(one_sentence(self._reason(verdict)))
        self._restart_at = time.monotonic() + pause
        self._say(f"restart {self._budget.used} of {self._budget.restarts_max} without progress, in {pause:g} s")

    # --- what wakes us ---

    def _on_stop(self) -> None:
        if not self._stop_asked or self._stopping:
            return
        self._stopping = True
        if not self._children.live:
            self._leave(int(Exit.TEMPORARY), "Stopped", "asked to stop while nothing was running")
            return
        self._kill_at = time.monotonic() + max(0.0, self._settings.grace_seconds - KILL_MARGIN_SECONDS)
        if self._gang:
            self._gang.drain(f"{self._settings.role} {self._settings.index} was asked to stop")
            return
        self._terminate()

    def _terminate(self) -> None:
        for pid in self._children.live:
            os.kill(pid, signal.SIGTERM)

    def _on_gang(self) -> None:
        for event in self._gang.collect() if self._gang else ():
            match event:
                case Closed(processes=processes):
                    if any(child.process in processes for child in self._children.live.values()):
                        self._say("the incarnation was closed; killing its ranks")
                        self._kill_rest()
                case Reported(life=life, durable_step=step, refusal=refusal):
                    if life == self._life and self._reporting is not None:
                        self._reported(self._reporting, step, refusal)
                case Refused(error=error):
                    self._refused(error)
                case NothingToSave():
                    self._terminate()

    def _reported(self, verdict: Verdict, step: int, refusal: EyasError | None) -> None:
        self._reporting = None
        if verdict.code == Exit.FENCED and refusal is None:
            verdict = Verdict(next=Next.RESTART, code=verdict.code, culprit=verdict.culprit)
        if refusal is not None and verdict.next is Next.RESTART:
            self._refusal = refusal
        self._decide(verdict, durable_step=step)

    def _refused(self, error: EyasError) -> None:
        if self._stopping and not isinstance(error, Fenced):
            return
        self._refusal = error
        self._kill_rest()
        if not self._children.live and self._reporting is None and self._code is None:
            self._leave(int(error.exit_code), type(error).__name__, str(error))

    def _on_time(self) -> None:
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._kill_rest()
        if self._restarts.waiting and self._children.live and self._children.ready:
            self._restarts.ready()
        if self._restart_at is not None and now >= self._restart_at and self._code is None:
            self._start_life()
        elif self._spares_at is not None and now >= self._spares_at:
            self._look_after_spares(now)

    def _look_after_spares(self, now: float) -> None:
        """Readiness is a file: look now and then. A look that finds it ready comes before the one that starts them."""
        if self._stopping or not self._children.live:
            self._spares_at = None
            return
        self._spares_at = now + SETTLE_SECONDS
        if self._children.spares_missing and self._was_ready:
            self._children.fill_spares()
        self._was_ready = self._children.spares_missing

    # --- the end ---

    def _told(self, verdict: Verdict) -> Termination | None:
        return self._children.termination(verdict.culprit.slot) if verdict.culprit else None

    def _reason(self, verdict: Verdict) -> str:
        return reason(verdict, self._told(verdict), stopping=self._stopping)

    def _leave_with(self, verdict: Verdict, prefix: str) -> None:
        self._go(last_words(verdict, self._told(verdict), stopping=self._stopping, prefix=prefix))

    def _leave(self, code: int, klass: str, message: str) -> None:
        self._go(Termination(exit_code=code, klass=klass, message=one_sentence(message)))

    def _go(self, termination: Termination) -> None:
        self._code = termination.exit_code
        if termination.exit_code == Exit.DONE:
            return
        self._say(f"leaving with {termination.exit_code}: {termination.message}")
        if self._settings.termination_log is not None:
            write_termination(self._settings.termination_log, termination)

    def _say(self, text: str) -> None:
        self._log.write(f"supervisor of {self._settings.role} {self._settings.index}: {text}\n".encode())
