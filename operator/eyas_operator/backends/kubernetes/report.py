"""What a job's metadata service says of it: one bounded HTTP call, with the read token that we can derive.

A service that does not answer in time, or answers nonsense, gives no report: the plan knows what that means. The
highest store epoch seen of a job travels with every call, and an answer of a lower one is none. The pod is asked at its
own address, not by its Service's name: looking up names goes through a few threads, and a slow name server would hold
up the passes of all jobs.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import aiohttp

from eyas_contract import env, wire
from eyas_contract.errors import UserError
from eyas_operator.backends.kubernetes.keys import OperatorKeys
from eyas_operator.names import JobIdentity
from eyas_operator.world import Pod

REPORT_SECONDS: Final = 2.0
SILENT_SECONDS: Final = 2.0
"""A pod that let a call time out is not asked again for so long: a pass asks twice, and its node may be dead."""
REPORT_BYTES_MAX: Final = 4 << 20
JOBS_MAX: Final = 10_000
"""Jobs whose epoch is remembered; the least lately asked is forgotten first."""
V = TypeVar("V")


class Reports:
    """Asks metadata services. Construct inside the event loop; `close` ends the connections."""

    def __init__(self, keys: OperatorKeys, url_of: Callable[[Pod], str], clock: Callable[[], float]) -> None:
        """`url_of(pod)` is the base URL of the service in a pod that has an address; `clock` is monotonic."""
        self._keys = keys
        self._url_of = url_of
        self._clock = clock
        self._silent: dict[str, float] = {}
        """When each pod that let a call time out may be asked again, by its UID."""
        self._epochs: dict[str, int] = {}
        self._stale: dict[str, None] = {}
        timeout = aiohttp.ClientTimeout(total=REPORT_SECONDS)
        # Fenced services must not be spoken to over an old connection.
        connector = aiohttp.TCPConnector(force_close=True, limit=64)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False)

    async def read(self, job: JobIdentity, pod: Pod) -> wire.StatusReply | None:
        """`/v1/status` of `pod`; None when none of the newest epoch answers there. Raises `UserError` without a key."""
        if not pod.status.pod_ip or self._clock() < self._silent.get(pod.metadata.uid, 0.0):
            return None
        tokens = self._keys.tokens(env.TOKEN_READER, job.job_uid)
        for token in tokens:
            try:
                code, epoch, body = await self._ask(job, pod, token)
            except TimeoutError:
                _remember(self._silent, pod.metadata.uid, self._clock() + SILENT_SECONDS)
                return None
            except (aiohttp.ClientError, OSError):
                return None
            if code == 401:
                _remember(self._stale, job.uid, None)
                continue
            if token == tokens[0]:
                self._stale.pop(job.uid, None)
            return self._believed(job, epoch, body) if code == 200 else None
        return None

    def stale(self, job: JobIdentity) -> bool:
        """Whether the job's service refused the token that derives from the current key, when it was last asked."""
        return job.uid in self._stale

    async def _ask(self, job: JobIdentity, pod: Pod, token: str) -> tuple[int, int, bytes]:
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            wire.STORE_EPOCH_HEADER: str(self._epochs.get(job.uid, 0)),
        }
        url = self._url_of(pod) + wire.STATUS.path
        async with self._session.post(
            url, data=wire.encode(wire.Empty()), headers=headers, allow_redirects=False
        ) as answer:
            body = await answer.content.read(REPORT_BYTES_MAX + 1)
            while len(body) <= REPORT_BYTES_MAX and not answer.content.at_eof():
                body += await answer.content.read(REPORT_BYTES_MAX + 1 - len(body))
            text = answer.headers.get(wire.STORE_EPOCH_HEADER, "")
            return answer.status, int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1, body

    def _believed(self, job: JobIdentity, epoch: int, body: bytes) -> wire.StatusReply | None:
        if epoch < self._epochs.get(job.uid, 0):
            return None
        try:
            report = wire.decode(body, wire.StatusReply, bytes_max=REPORT_BYTES_MAX)
        except UserError:
            return None
        if report.job_uid != job.job_uid:
            return None
        _remember(self._epochs, job.uid, epoch)
        return report

    async def close(self) -> None:
        """End the connections."""
        await self._session.close()


def _remember(known: dict[str, V], key: str, value: V) -> None:
    """The newest last; the oldest is forgotten for it."""
    known.pop(key, None)
    known[key] = value
    if len(known) > JOBS_MAX:
        del known[next(iter(known))]
