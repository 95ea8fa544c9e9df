"""Settings come from the environment, typed, and say which variable is wrong."""

import pytest

from eyas_contract.errors import UserError
from eyas_operator.settings import Settings, settings_from


def test_every_setting_can_be_set_by_its_variable() -> None:
    for name, kind in Settings.__annotations__.items():
        value = {str: "7", float: "7.5", int: "7"}[kind]
        read = settings_from({f"EYAS_OPERATOR_{name.upper()}": value})
        assert getattr(read, name) == kind(value)
        assert read != Settings()


def test_other_variables_are_ignored() -> None:
    assert settings_from({"RESYNC_SECONDS": "3", "EYAS_OPERATOR_UNKNOWN": "x"}) == Settings()


def test_wrong_value_names_its_variable() -> None:
    with pytest.raises(UserError, match="EYAS_OPERATOR_RESYNC_SECONDS: must be a float, not 'soon'"):
        settings_from({"EYAS_OPERATOR_RESYNC_SECONDS": "soon"})
