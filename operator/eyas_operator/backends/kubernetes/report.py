"""What a job's metadata service says of it: one bounded HTTP call, with the read token that we can derive.

A service that does not answer in time, or answers nonsense, gives no report: the plan knows what that means. The
highest store epoch seen of a job travels with every call, and an answer of a lower one is none.
"""

from collections.abc import Callable
from typing import Final

import aiohttp

from eyas_contract import env, wire
from eyas_contract.errors import UserError
from eyas_operator.backends.kubernetes.keys import OperatorKeys
from eyas_operator.names import JobIdentity

REPORT_SECONDS: Final = 2.0
REPORT_BYTES_MAX: Final = 4 << 20
JOBS_MAX: Final = 10_000
"""Jobs whose epoch is remembered; the least lately asked is forgotten first."""


class Reports:
    """Asks metadata services. Construct inside the event loop; `close` ends the connections."""

    def __init__(self, keys: OperatorKeys, url_of: Callable[[JobIdentity], str]) -> None:
        """`url_of(job)` is the base URL of a job's service."""
        self._keys = keys
        self._url_of = url_of
        self._epochs: dict[str, int] = {}
        self._stale: dict[str, None] = {}
        timeout = aiohttp.ClientTimeout(total=REPORT_SECONDS)
        # Fenced services must not be spoken to over an old connection; names are resolved anew for a new pod.
        connector = aiohttp.TCPConnector(force_close=True, use_dns_cache=False, limit=64)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False)

    async def read(self, job: JobIdentity) -> wire.StatusReply | None:
        """`/v1/status`; None when no service of the newest epoch answers it. Raises `UserError` without a key."""
        tokens = self._keys.tokens(env.TOKEN_READER, job.job_uid)
        for token in tokens:
            try:
                code, epoch, body = await self._ask(job, token)
            except (aiohttp.ClientError, TimeoutError, OSError):
                return None
            if code == 401:
                self._note_stale(job)
                continue
            if token == tokens[0]:
                self._stale.pop(job.uid, None)
            return self._believed(job, epoch, body) if code == 200 else None
        return None

    def stale(self, job: JobIdentity) -> bool:
        """Whether the job's service refused the token that derives from the current key, when it was last asked."""
        return job.uid in self._stale

    def _note_stale(self, job: JobIdentity) -> None:
        self._stale[job.uid] = None
        while len(self._stale) > JOBS_MAX:
            del self._stale[next(iter(self._stale))]

    async def _ask(self, job: JobIdentity, token: str) -> tuple[int, int, bytes]:
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            wire.STORE_EPOCH_HEADER: str(self._epochs.get(job.uid, 0)),
        }
        url = self._url_of(job) + wire.STATUS.path
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
        self._epochs.pop(job.uid, None)
        self._epochs[job.uid] = epoch
        while len(self._epochs) > JOBS_MAX:
            del self._epochs[next(iter(self._epochs))]
        return report

    async def close(self) -> None:
        """End the connections."""
        await self._session.close()
