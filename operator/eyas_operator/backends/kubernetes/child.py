"""A child of which only metadata is looked at, from that metadata as the API server or a watch gives it. Pure."""

from typing import Final

import msgspec

from eyas_operator.names import FIELD_MANAGER
from eyas_operator.world import Child, Metadata, Time

_NOTHING: Final = b"{}"


class _Entry(msgspec.Struct):
    manager: str = ""
    operation: str = ""
    subresource: str = ""
    time: Time = ""
    fields: msgspec.Raw = msgspec.field(name="fieldsV1", default=msgspec.Raw(_NOTHING))


class _Managed(msgspec.Struct):
    entries: tuple[_Entry, ...] = msgspec.field(name="managedFields", default=())


def child_of(kind: str, metadata: bytes | msgspec.Raw) -> Child:
    """The child of that `metadata`, in JSON. Raises msgspec's errors for what is none."""
    entries = msgspec.json.decode(metadata, type=_Managed).entries
    ours = (it for it in entries if (it.manager, it.operation, it.subresource) == (FIELD_MANAGER, "Apply", ""))
    applied = next(ours, _Entry())
    return Child(
        kind=kind,
        metadata=msgspec.json.decode(metadata, type=Metadata),
        fields=bytes(applied.fields),
        applied_time=applied.time,
    )
