"""`eyas audit`: promise 3, read from the ledger of a run and from the store itself.

A live run is asked through its service, which lists the pool. A run that ended is read from its newest metadata file;
what is left in its store is counted in its folder (a Mooncake pool of the run's own ended with its store nodes).
"""

import json
from pathlib import Path

import msgspec

from eyas_cli.runs import Run
from eyas_contract import wire
from eyas_contract.errors import Transient, UserError
from eyas_contract.exits import Exit


def audit_of(run: Run) -> wire.AuditReply:
    """The audit of a run. Raises `UserError` when there is no ledger to read."""
    if any(entry.role == "metadata" for entry in run.processes()):
        try:
            return run.client.call(wire.AUDIT, wire.Empty(), deadline_seconds=30)
        except (Transient, UserError):
            pass  # It ended between the look and the call.
    from eyas_runtime.metadata.offline import read_audit

    ledgers = run.ledgers()
    if not ledgers:
        raise UserError(f"{run.workdir} has no metadata store: nothing was ever prepared")
    audit = read_audit(ledgers[-1])
    left = [path for path in run.workdir.glob("claims/*store*/**/eyas.*") if path.is_file()]
    return msgspec.structs.replace(
        audit, resident_objects=len(left), resident_bytes=sum(path.stat().st_size for path in left)
    )


def report(workdir: Path, *, as_json: bool) -> int:
    """Print the audit; exit code 1 when a sample is missing or was trained twice in a finished run."""
    run = Run(workdir)
    audit, ended = audit_of(run), bool(run.result())
    if as_json:
        print(json.dumps(_camel(audit)))
    else:
        for name, value in _camel(audit).items():
            print(f"{name:<16} {value}")
    broken = audit.trained_twice > 0 or (ended and audit.missing > 0)
    return Exit.CRASH if broken else Exit.DONE


def _camel(audit: wire.AuditReply) -> dict[str, int]:
    """The field names of the contract for automation."""
    names = {name: "".join(part.title() if place else part for place, part in enumerate(name.split("_")))
             for name in audit.__struct_fields__}  # fmt: skip
    return {camel: getattr(audit, name) for name, camel in names.items()}
