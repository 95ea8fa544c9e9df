"""Building blocks of the resource's types: the base model, quantities, bounded strings.

Rules: camelCase outside, snake_case inside; unknown fields are refused; JSON types are taken literally (a string is no
number); every string and list is bounded, so that a CRD validator's cost stays bounded too. A field's docstring is its
description in the CRD.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from eyas_operator.api.checks import Check
from eyas_operator.environment import ON_NO_VOLUME, READABLE, is_on_a_volume


class Model(BaseModel):
    """Base of every type in the spec: immutable, camelCase in JSON, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


CAMEL: Final = ConfigDict(
    alias_generator=to_camel,
    validate_by_name=True,
    extra="ignore",
    serialize_by_alias=True,
    use_attribute_docstrings=True,
)
"""How the frozen dataclasses of the status are written and read: camelCase, what is not known is passed over."""

_QUANTITY: Final = re.compile(r"([0-9]{1,15})(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?")
_SUFFIX: Final = {
    None: 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip
BYTES_MIN: Final = 2**20
BYTES_MAX: Final = 2**60


def parse_quantity(value: object) -> int:
    """Bytes of a Kubernetes quantity (`140Gi`, `500M`, 1024). Raises `ValueError` with a sentence."""
    if isinstance(value, int) and not isinstance(value, bool):
        nbytes = value
    else:
        match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError("must be a quantity of bytes such as 512Mi or 140Gi")
        whole, fraction, suffix = match.groups()
        scale = _SUFFIX[suffix]
        nbytes = int(whole) * scale
        if fraction:
            nbytes += int(fraction[1:]) * scale // 10 ** (len(fraction) - 1)
    return nbytes


_QUANTITY_SCHEMA: Final[dict[str, Any]] = {
    "x-kubernetes-int-or-string": True,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": r"^[0-9]{1,15}(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$",
    # As the pattern says already, but by this the API server estimates the cost of a rule.
    "maxLength": 27,
}
_BOUNDED: Final = Check(
    message="must be between 1Mi and 1024Pi",
    holds=lambda nbytes: BYTES_MIN <= nbytes <= BYTES_MAX,
    # What is no quantity at all is told by the pattern.
    cel="!isQuantity(string(self)) || (quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && "
    "quantity(string(self)).compareTo(quantity('1024Pi')) <= 0)",
)
Quantity = Annotated[int, BeforeValidator(parse_quantity), WithJsonSchema(_QUANTITY_SCHEMA), _BOUNDED]
"""A number of bytes, written as a Kubernetes quantity. None of ours can be below 1Mi and serve."""


def render_quantity(nbytes: int) -> str:
    """The shortest exact quantity, for example 140Gi."""
    for suffix in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        scale = _SUFFIX[suffix]
        if nbytes and nbytes % scale == 0:
            return f"{nbytes // scale}{suffix}"
    return str(nbytes)


Path = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f]+$")]
"""A path as a role's processes see it."""
VolumePath = Annotated[
    Path,
    Check(
        message=f"{{self}} {ON_NO_VOLUME}",
        holds=is_on_a_volume,
        cel=f"{list(READABLE)}.exists(root, (self + '/').startsWith(root + '/')) && "
        "!('/' + self + '/').contains('/../')",
        cluster_only=True,
    ),
]
"""A path on one of the job's volumes; a local run also takes paths of its machine."""
Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""Name of another object in the job's namespace."""
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seconds = Annotated[int, Field(ge=1, le=31_536_000)]


class Dtype(StrEnum):
    """Floating-point type; spelled as torch spells it."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
