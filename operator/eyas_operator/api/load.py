"""YAML to a plain body, as Kubernetes would read it.

PyYAML follows YAML 1.1, in which `1e-4` is a string and a repeated key silently wins; both surprise people who write a
learning rate or paste a block twice. Safe construction only: no tags, no objects, no dates.
"""

import re
from collections.abc import Hashable
from typing import Any, Final

import yaml

from eyas_contract.errors import UserError

YAML_BYTES_MAX: Final = 1 << 20
_FLOAT: Final = re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$")
_INT: Final = re.compile(r"^[-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    """Safe loader with YAML 1.2 numbers, without dates, refusing repeated keys."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class declares it so
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float", "tag:yaml.org,2002:int")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise UserError(f"line {key_node.start_mark.line + 1}: {key} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def load_yaml(text: str) -> dict[str, Any]:
    """The one object in `text`. Raises `UserError` with the line of a syntax error or of a repeated key."""
    if len(text.encode()) > YAML_BYTES_MAX:
        raise UserError(f"the job has more than {YAML_BYTES_MAX} bytes")
    loader = _Loader(text)
    try:
        body = loader.get_single_data()
    except yaml.YAMLError as error:
        raise UserError(f"not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()
    if not isinstance(body, dict):
        raise UserError("the job must be one YAML object with apiVersion, kind, metadata and spec")
    return body
