"""From a decoded body to `DisaggTrainingJob`, or to one line per error, each with its field path.

Pure. The messages are for people who write YAML: they say what the field must be, not what a validator thought.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from eyas_operator.api.job import DisaggTrainingJob, JobSpec
from eyas_operator.api.rules import violations
from eyas_operator.errors import SpecError

ERRORS_MAX: Final = 50
_KINDS: Final = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "missing": "is required",
    "string_pattern_mismatch": "must match {pattern}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


def parse(body: Mapping[str, Any]) -> DisaggTrainingJob:
    """The typed job. Raises `SpecError` with every error found, shape first, then rules over several fields."""
    try:
        raw = json.dumps(body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SpecError([f"the job is not plain JSON: {error}"]) from error
    try:
        job = DisaggTrainingJob.model_validate_json(raw, strict=True)
    except ValidationError as error:
        lines = list(dict.fromkeys(_line(details) for details in _innermost(error.errors(include_url=False))))
        raise SpecError(lines[:ERRORS_MAX]) from None
    broken = violations(job.spec)
    if broken:
        raise SpecError(broken)
    return job


def _innermost(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Without the complaint that a list is too short when it is one of its entries that is wrong."""
    places = {details["loc"] for details in errors}
    return [
        details
        for details in errors
        if details["type"] != "too_short"
        or not any(
            len(place) > len(details["loc"]) and place[: len(details["loc"])] == details["loc"] for place in places
        )
    ]


def _line(details: ErrorDetails) -> str:
    where = details["loc"]
    return f"{field_path(where) or 'the job'}: {_sentence(details['type'], details.get('ctx', {}), where)}"


def field_path(where: Sequence[str | int]) -> str:
    """`spec.data.prompts[0]` for `("spec", "data", "prompts", 0)`; keys of maps in brackets, as the API server does."""
    path = ""
    model: type[BaseModel] | None = DisaggTrainingJob
    for part in where:
        if isinstance(part, int) or model is None:
            path += f"[{part}]" if part != "[key]" else ""
            continue
        path += f".{part}" if path else part
        model = _model_of(model, part)
    return path


def _sentence(kind: str, context: Mapping[str, Any], where: Sequence[str | int]) -> str:
    if kind == "extra_forbidden":
        guess = _nearest(where)
        return f"is not a known field{f'; did you mean {guess}?' if guess else ''}"
    if kind in ("enum", "literal_error"):
        return f"must be {str(context['expected']).replace(chr(39), '')}"
    if kind == "value_error":
        return str(context["error"])
    template = _KINDS.get(kind)
    return template.format(**context) if template else f"is not valid ({kind})"


def _nearest(where: Sequence[str | int]) -> str | None:
    """The known field beside `where` that looks most like it."""
    model: type[BaseModel] | None = JobSpec
    if len(where) < 2 or where[0] != "spec":
        return None
    for part in where[1:-1]:
        if isinstance(part, str) and model is not None:
            model = _model_of(model, part)
    if model is None:
        return None
    known = [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.6)
    return close[0] if close else None


def _model_of(model: type[BaseModel], alias: str) -> type[BaseModel] | None:
    for name, field in model.model_fields.items():
        if (field.alias or name) == alias:
            candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
            for candidate in candidates:
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    return candidate
    return None
