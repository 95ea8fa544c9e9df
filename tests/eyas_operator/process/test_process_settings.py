"""Settings of the process: read at one place, and refused with a sentence that names the variable."""

import pytest

from eyas_contract.errors import UserError
from eyas_operator.process.settings import process_settings_from

OWN = {"EYAS_OPERATOR_NAMESPACE": "eyas-system", "EYAS_OPERATOR_POD_NAME": "eyas-operator-1"}


def test_the_own_namespace_is_watched_unless_others_are_named() -> None:
    assert process_settings_from(OWN).namespaces == ("eyas-system",)
    named = process_settings_from(OWN | {"EYAS_OPERATOR_WATCH_NAMESPACES": "a, b,,a"})
    assert named.namespaces == ("a", "b")
    assert process_settings_from(OWN | {"EYAS_OPERATOR_WATCH_NAMESPACES": " * "}).namespaces == ("*",)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NAMESPACE", ""),
        ("POD_NAME", ""),
        ("WATCH_NAMESPACES", "Not_A_Name"),
        ("WATCH_NAMESPACES", "a,*"),
        ("WORKERS", "many"),
        ("WORKERS", "0"),
        ("RELIST_SECONDS", "0"),
        ("PROBES_LISTEN", "70000"),
    ],
)
def test_what_cannot_work_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(UserError, match=f"EYAS_OPERATOR_{variable}"):
        process_settings_from(OWN | {f"EYAS_OPERATOR_{variable}": value})


def test_what_kubernetes_adds_for_a_service_of_that_name_changes_nothing() -> None:
    links = {
        "EYAS_OPERATOR_PORT": "tcp://10.0.0.1:8080",
        "EYAS_OPERATOR_SERVICE_HOST": "10.0.0.1",
        "EYAS_OPERATOR_SERVICE_PORT_METRICS": "8080",
    }
    assert process_settings_from(OWN | links) == process_settings_from(OWN)
