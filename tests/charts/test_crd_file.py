"""The chart's CustomResourceDefinition is the types', to the byte."""

import yaml

from eyas_operator.api.crd import crd
from eyas_operator.api.crd_file import crd_yaml
from support.helm import CHART


def test_the_file_in_the_chart_is_what_the_types_give_now() -> None:
    assert (CHART / "files" / "crd.yaml").read_text() == crd_yaml(), "run make crd"


def test_the_file_says_what_the_types_say() -> None:
    assert yaml.safe_load(crd_yaml()) == crd()
