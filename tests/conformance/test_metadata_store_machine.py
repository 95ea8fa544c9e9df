"""Random jobs with random faults: both stores agree at every call and keep promises 1, 3, 5, 6, 7 and 8."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from eyas_contract.states import Sample
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from support.metadata_machine import StoreMachine

_LIMITS = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


class WatchedMachine(StoreMachine):
    """Also looks into the SQLite file: sums and references are right after every call."""

    def both_say_the_same(self) -> None:
        super().both_say_the_same()
        subject = self.actors[0].store
        assert isinstance(subject, SQLiteMetadataStore)
        rows = subject._db._connection.execute  # the file is locked for everybody else
        counted = dict(rows("SELECT state, count(*) FROM samples GROUP BY state").fetchall())
        assert dict(rows("SELECT state, samples FROM tally").fetchall()) == {
            state.value: counted.get(state.value, 0) for state in Sample
        }
        sums = "SELECT state, count(*), sum(length) FROM objects GROUP BY state ORDER BY state"
        totals = "SELECT state, objects, bytes FROM object_totals WHERE objects > 0 ORDER BY state"
        assert rows(sums).fetchall() == rows(totals).fetchall()
        assert rows(
            "SELECT count(*) FROM samples s LEFT JOIN objects o ON o.generation = s.object"
            " WHERE s.object IS NOT NULL AND o.state IS NOT 'used'"
        ).fetchone() == (0,)
        assert rows(
            "SELECT count(*) FROM objects WHERE state = 'used'"
            " AND generation NOT IN (SELECT object FROM samples WHERE object IS NOT NULL)"
        ).fetchone() == (0,)


def test_both_stores_keep_the_promises_through_random_jobs() -> None:
    run_state_machine_as_test(WatchedMachine, settings=settings(max_examples=15, stateful_step_count=30, **_LIMITS))


@pytest.mark.slow
def test_both_stores_keep_the_promises_through_many_random_jobs() -> None:
    run_state_machine_as_test(WatchedMachine, settings=settings(max_examples=300, stateful_step_count=60, **_LIMITS))
