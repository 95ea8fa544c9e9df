"""Whether somebody else wrote over what we wrote: read from the API server's own account of who set which field.

Pure. Server-side apply files every field of ours under our name (`managedFields`), and takes it off that list as soon
as anybody else changes or removes the field. So an object is as we applied it if each field that we want is still
listed as ours: no values are compared, defaults that the server fills in do not matter, fields that others add stay
theirs, and applying once more makes every field ours again.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from eyas_operator import names
from eyas_operator.desired import Desired
from eyas_operator.observe import OtherView
from eyas_operator.world import Manifest, metadata_alone, seconds_of

PUT_BACK_SECONDS: Final = 10.0
"""An object is put back so often at most: another controller that wants it otherwise makes no storm of writes."""
_UNLISTED: Final = ("apiVersion", "kind")
_IDENTITY: Final = ("name", "namespace")
"""Of `metadata`; nobody can change either, and nobody owns it."""


def edited(others: Mapping[tuple[str, str], OtherView], target: Desired, now: float) -> Iterator[Manifest]:
    """What has to be applied again, although it looks applied. The configuration is immutable but for its metadata."""
    for manifest in target.applied:
        view = others.get(_key(manifest))
        digest = manifest["metadata"]["annotations"][names.ANNOTATION_DIGEST]
        if view is not None and view.digest == digest and _rested(view, now) and not _as_applied(view, manifest):
            yield manifest
    view = others.get(_key(target.config))
    if view is not None and _rested(view, now) and not _labelled(view, target.config):
        yield metadata_alone(target.config)


def _key(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _as_applied(view: OtherView, manifest: Manifest) -> bool:
    return view.fields is None or is_ours(view.fields, manifest)


def _labelled(view: OtherView, manifest: Manifest) -> bool:
    wanted = {key: value for key, value in manifest["metadata"]["labels"].items() if key != names.LABEL_VERSION}
    return view.fields is None or wanted.items() <= view.labels.items()


def _rested(view: OtherView, now: float) -> bool:
    """A clock that is behind the server's must not hold it up for ever."""
    return not 0 <= now - seconds_of(view.applied_time) < PUT_BACK_SECONDS


def is_ours(fields: bytes, manifest: Manifest) -> bool:
    """Whether every field of `manifest` is in `fields`, a set in the API server's format `FieldsV1`."""
    owned = msgspec.json.decode(fields, type=dict[str, Any])
    wanted = {key: value for key, value in manifest.items() if key not in _UNLISTED}
    wanted["metadata"] = {key: value for key, value in manifest["metadata"].items() if key not in _IDENTITY}
    return _all_owned(owned, wanted)


def _all_owned(owned: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """None asks for a field to be absent, and nobody owns what is not there."""
    said = {key: value for key, value in wanted.items() if value is not None}
    return all(f"f:{key}" in owned and _covers(owned[f"f:{key}"], value) for key, value in said.items())


def _covers(owned: dict[str, Any], wanted: object) -> bool:
    if not owned:
        # A plain value, or a part that is owned as a whole.
        return True
    if isinstance(wanted, dict):
        return _all_owned(owned, wanted)
    if isinstance(wanted, list):
        return all(any(_covers(part, item) for part in _parts_of(owned, item)) for item in wanted)
    return True


def _parts_of(owned: dict[str, Any], item: object) -> Iterator[dict[str, Any]]:
    """What of `item`, an element of a list, is owned: elements go by the fields that identify them, or by value."""
    for name, part in owned.items():
        kind, _, text = name.partition(":")
        if kind == "v" and json.loads(text) == item:
            yield part
        if kind == "k" and isinstance(item, dict) and json.loads(text).items() <= item.items():
            yield part
