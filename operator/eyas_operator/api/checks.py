"""Rules about one value of the spec, each said once and asked twice.

The API server asks a rule in CEL, so that `kubectl apply` refuses what cannot work; the operator and local runs ask it
in Python, for objects that are older than the rule and where there is no API server. Both say the same sentence under
the same field. Rules over several fields of the whole spec are in `rules`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS: Final = "x-kubernetes-validations"
_VALUE: Final = "{self}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Annotates a type: `holds(value)` must be True, or `message` is an error at the value's place."""

    message: str
    """What the value must be. One that begins with {self} names the value, a string, there."""
    holds: Callable[[Any], bool]
    cel: str
    """The same over `self`, the value."""
    cluster_only: bool = False
    """Other environments have other answers: each asks for itself, and parsing a job does not."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        inner = handler(source)
        return inner if self.cluster_only else core_schema.no_info_after_validator_function(self._checked, inner)

    def _checked(self, value: object) -> object:
        if not self.holds(value):
            raise ValueError(self.message.replace(_VALUE, str(value)))
        return value

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        return schema | {VALIDATIONS: [*schema.get(VALIDATIONS, ()), self._entry()]}

    def _entry(self) -> dict[str, str]:
        if self.message.startswith(_VALUE):
            return {"rule": self.cel, "messageExpression": f"self + '{self.message.removeprefix(_VALUE)}'"}
        return {"rule": self.cel, "message": self.message}


def once(field: str, what: str) -> Check:
    """No two entries of a list have the same `field`, which is an identifier in Python and in JSON alike."""

    def holds(entries: tuple[Any, ...]) -> bool:
        found = [getattr(entry, field) for entry in entries]
        return len(set(found)) == len(found)

    cel = f"self.all(a, self.exists_one(b, a.{field} == b.{field}))"
    return Check(message=f"must name each {what} once", holds=holds, cel=cel)
