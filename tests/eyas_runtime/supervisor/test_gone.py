"""A pod that stops gives up on a service whose name is gone, and on no other."""

import socket

import pytest

from eyas_runtime.supervisor import gone

URL = "http://demo-metadata.team.svc:7380"


def answers(monkeypatch: pytest.MonkeyPatch, *known: bool) -> list[str]:
    """The resolver's answers in order, the last for ever; gives the list of names that were asked for."""
    asked: list[str] = []

    def resolve(host: str, port: None) -> list[object]:
        asked.append(host)
        if not known[min(len(asked), len(known)) - 1]:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    clock = iter(range(1000))
    monkeypatch.setattr(gone.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(gone.time, "sleep", lambda seconds: None)
    return asked


def test_a_name_that_stays_unknown_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, False)
    gone.wait_until_unknown(URL, patience=5)
    assert set(asked) == {"demo-metadata.team.svc"}
    assert len(asked) == 4, "one look a second, until five have passed"


def test_a_name_that_comes_back_begins_the_wait_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, False, False, False, True, False)
    gone.wait_until_unknown(URL, patience=5)
    assert len(asked) == 8
