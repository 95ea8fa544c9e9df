"""Events never hold up a pass: whatever the API server does with them, there is one bound for all of a pass."""

import asyncio
import json
from pathlib import Path

import pytest

from eyas_operator.backends.kubernetes import recorder
from eyas_operator.backends.kubernetes.client import open_client
from eyas_operator.backends.kubernetes.recorder import Recorder
from eyas_operator.cluster import Event
from support.operator_world import JOB, NOW

EVENTS = tuple(
    Event(type="Warning", reason="PodReplaced", message=f"producer-{index}", action="Restart") for index in range(3)
)


def test_a_server_that_never_answers_costs_one_bound_and_not_one_for_each_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "TELL_SECONDS", 0.2)
    connections = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()
        writer.close()

    async def untold() -> int:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [
                {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}}
            ],
            "users": [{"name": "u", "user": {}}],
        }
        (tmp_path / "config").write_text(json.dumps(config))
        client = await open_client(tmp_path / "config")
        try:
            async with server:
                return await Recorder(client, "operator-0", lambda: NOW).post(JOB, EVENTS)
        finally:
            await client.close()

    assert asyncio.run(untold()) == len(EVENTS)
    assert connections == 1
