"""Claims about a damaged database under the real service: its own exit code, one sentence, and the file left alone."""

from pathlib import Path

import msgspec
import pytest

from eyas_contract import env, wire
from eyas_contract.errors import Damaged, Transient
from eyas_contract.exits import Exit
from support.damage import FORMS, damage, damage_page_by_page
from support.metadata_service import ServiceProcess, client_of, free_port, job_config, running_service
from support.small_job import producer_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("how", FORMS)
def test_a_damaged_database_is_exit_65_with_its_name_and_stays_as_it_is(tmp_path: Path, how: str) -> None:
    port = free_port()
    config = job_config(tmp_path, port=port)
    service = ServiceProcess(tmp_path, config).wait_ready()
    producer_of(tmp_path, port).prepare([8] * 8)
    assert service.terminate() == 143
    database = tmp_path / "metadata" / "metadata.sqlite"
    damage(database, how)
    before = database.read_bytes() if database.exists() else None
    service = ServiceProcess(tmp_path, config, **{env.TERMINATION_LOG: str(tmp_path / "termination")})
    assert service.process.wait(60.0) == Exit.DAMAGED
    told = msgspec.json.decode((tmp_path / "termination").read_bytes(), type=wire.Termination)
    assert (told.exit_code, told.klass) == (Exit.DAMAGED, "Damaged")
    assert told.message.startswith(f"the metadata database {database} is damaged (")
    assert (database.read_bytes() if database.exists() else None) == before
    assert not service.ready_file.exists(), "a service without a database is never ready"


def test_damage_that_a_call_meets_ends_the_service_with_65_before_it_answers(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        producer_of(tmp_path, service.port).prepare([8] * 4000)
        client = client_of(tmp_path, service.port, "producer", deadline_seconds=0.5)
        inner = service._service
        store = inner._the_job().store
        path = tmp_path / "metadata" / "metadata.sqlite"
        inner._worker.call(lambda: damage_page_by_page(path, store._db._connection))  # type: ignore[attr-defined]
        with pytest.raises(Transient):
            client.lease(wire.LeaseRequest(holder=wire.Holder(index=0, ordinal=1, restart=0), request_id="r"))
        service.ended()
    assert isinstance(service.error, Damaged)
    assert service.error.exit_code == Exit.DAMAGED
