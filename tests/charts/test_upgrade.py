"""What a release can never change again: every version that was released is recorded, and the chart compared with it.

`released/VERSION.json` holds, for each object of an install of everything, the fields that an API server refuses to
change. A record is written once, when its version is released (`python tests/charts/test_upgrade.py FILE`).
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.helm import MONITORING, POOL, Manifest, rendered

RECORDS = sorted((Path(__file__).parent / "released").glob("*.json"))
FIXED: dict[str, tuple[str, ...]] = {
    "Deployment": ("selector",),
    "StatefulSet": ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"),
    "Service": ("clusterIP",),
    "CustomResourceDefinition": ("group", "scope"),
}


def fixed(manifests: list[Manifest]) -> dict[str, Any]:
    """By kind and name, the fields that cannot change once the object is there."""
    found = {}
    for entry in manifests:
        spec = entry.get("spec", {})
        fields = {key: spec[key] for key in FIXED.get(entry["kind"], ()) if key in spec}
        if "roleRef" in entry:
            fields["roleRef"] = entry["roleRef"]
        found[f"{entry['kind']}/{entry['metadata']['name']}"] = fields
    return found


def now() -> dict[str, Any]:
    return fixed(rendered(POOL | MONITORING))


@pytest.mark.chart
@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_an_upgrade_changes_no_field_that_cannot_change(record: Path) -> None:
    before, after = json.loads(record.read_text()), now()
    for name in before.keys() & after.keys():
        assert after[name] == before[name], name


@pytest.mark.chart
@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_an_upgrade_keeps_what_jobs_and_people_know_by_name(record: Path) -> None:
    kept = {
        name for name in json.loads(record.read_text()) if name.split("/")[0] in ("Secret", "Service", "ClusterRole")
    }
    assert kept <= now().keys()


def test_there_is_a_record_of_a_version() -> None:
    assert RECORDS


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(now(), indent=1, sort_keys=True) + "\n")
