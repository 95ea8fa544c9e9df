"""Specs that are refused for what one value says, by the API server and the operator alike, and their close neighbours.

Each is a handful of changes to a valid spec, as dotted paths below it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What is wrong, and what everybody says of it."""

    changes: Mapping[str, object]
    field: str
    says: str
    local: bool = True
    """A local run refuses it too."""


def changed(body: Mapping[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """`body` with other values in its spec, sharing nothing with it."""
    copy: dict[str, Any] = json.loads(json.dumps({"body": body, "values": list(changes.values())}))
    for path, value in zip(changes, copy["values"], strict=True):
        place = copy["body"]["spec"]
        *parents, last = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    spec: dict[str, Any] = copy["body"]
    return spec


def _template(container: Mapping[str, object] | None = None, **pod: object) -> dict[str, object]:
    return {"spec": {"containers": [{"name": "main"} | dict(container or {})]} | pod}


def _pod(role: str, container: Mapping[str, object] | None = None, **pod: object) -> dict[str, object]:
    """The template of one role."""
    return {f"{role}.template": _template(container, **pod)}


def _variables(role: str, *names: str) -> dict[str, object]:
    return _pod(role, {"env": [{"name": name, "value": str(place)} for place, name in enumerate(names)]})


def _mounts(role: str, *paths: str, **mount: object) -> dict[str, object]:
    """A template that mounts its one volume at each of these paths."""
    mounts = [{"name": "x-a", "mountPath": path} | mount for path in paths]
    return _pod(role, {"volumeMounts": mounts}, volumes=[_volume("x-a")])


def _volume(name: str) -> dict[str, object]:
    return {"name": name, "configMap": {"name": "c"}}


def _keys(role: str, kind: str, *keys: str) -> dict[str, object]:
    return {f"{role}.template": {"metadata": {kind: dict.fromkeys(keys, "v")}}}


def _limits(role: str, **limits: object) -> dict[str, object]:
    return _pod(role, {"resources": {"limits": limits}})


NODES: Final = "store.mooncake.nodes"
ROLES: Final = ("producers", "consumers", "services", NODES)
_MAIN: Final = "template.spec.containers[0]"
_RESERVED: Final = "is reserved for Eyas: take it out"
_KEYS: Final = "keys that begin with eyas.dev/ or app.kubernetes.io/ are reserved for Eyas: take them out"
_LABEL: Final = "must be a label's value: at most 63 letters, digits, - _ and ., with a letter or digit at both ends"
_LAYERS: Final = "must be three layer numbers, each above the one before"
_RANGE: Final = "must be between 1Mi and 1024Pi"
_DETOUR: Final = "must be the path without //, /./ and /../ in it"
_OURS: Final = (
    "must be apart from what Eyas mounts: /etc/eyas/config, /etc/eyas/tokens, /run/eyas, /tmp, /dev/shm, /models, "
    "/data, /checkpoints, /var/lib/eyas, /store, /dev/termination-log"
)
_APART: Final = "each mountPath must be apart from the others: not the same, and none below another one"
_INNER: Final = "must be a path inside the volume: relative, and without .. in it"
_DECLARED: Final = "each of its volumeMounts must name one of its volumes"
_SOURCE: Final = "each volume needs exactly one of persistentVolumeClaim, configMap and emptyDir"
_AMOUNT: Final = "must be a quantity such as 2, 500m or 16Gi"
_NO_VOLUME: Final = (
    "is on no volume of the job: it must begin with one of /models, /data, /checkpoints, /store and have no .. in it"
)


def _reserved(role: str, name: str) -> Refusal:
    return Refusal(changes=_variables(role, name), field=f"spec.{role}.{_MAIN}.env[0].name", says=f"{name} {_RESERVED}")


def _key(role: str, kind: str, key: str) -> Refusal:
    return Refusal(changes=_keys(role, kind, "team", key), field=f"spec.{role}.template.metadata.{kind}", says=_KEYS)


def _label(value: str) -> Refusal:
    changes = {"producers.template": {"metadata": {"labels": {"team": value}}}}
    return Refusal(changes=changes, field="spec.producers.template.metadata.labels[team]", says=_LABEL)


def _layers(*layers: int) -> Refusal:
    return Refusal(changes={"target.captureLayers": layers}, field="spec.target.captureLayers", says=_LAYERS)


def _bytes(field: str, value: object) -> Refusal:
    return Refusal(changes={field: value}, field=f"spec.{field}", says=_RANGE)


def _amount(role: str, **limits: object) -> Refusal:
    (name,) = limits
    field = f"spec.{role}.{_MAIN}.resources.limits[{name}]"
    return Refusal(changes=_limits(role, **limits), field=field, says=_AMOUNT)


def _mount(role: str, path: str, says: str = _OURS) -> Refusal:
    field = f"spec.{role}.{_MAIN}.volumeMounts[0].mountPath"
    return Refusal(changes=_mounts(role, path), field=field, says=says)


def _apart(role: str, *paths: str) -> Refusal:
    return Refusal(changes=_mounts(role, *paths), field=f"spec.{role}.{_MAIN}.volumeMounts", says=_APART)


def _inner(role: str, path: str) -> Refusal:
    field = f"spec.{role}.{_MAIN}.volumeMounts[0].subPath"
    return Refusal(changes=_mounts(role, "/a", subPath=path), field=field, says=_INNER)


def _volumes(role: str, says: str, *volumes: Mapping[str, object]) -> Refusal:
    return Refusal(changes=_pod(role, volumes=volumes), field=f"spec.{role}.template.spec.volumes", says=says)


def mounted(path: str) -> dict[str, object]:
    """A template that mounts its volume at `path`."""
    return _mounts("producers", path)


def undeclared(role: str) -> Refusal:
    """A mount of a volume that the template of `role` does not have."""
    mount = {"name": "x-b", "mountPath": "/a"}
    changes = _pod(role, {"volumeMounts": [mount]}, volumes=[_volume("x-a")])
    return Refusal(changes=changes, field=f"spec.{role}.template.spec", says=_DECLARED)


def _no_volume(path: str, field: str, changes: Mapping[str, object]) -> Refusal:
    return Refusal(changes=changes, field=f"spec.{field}", says=f"{path} {_NO_VOLUME}", local=False)


_TWO_SOURCES: Final = _volume("x-a") | {"emptyDir": {"sizeLimit": "1Gi"}}
_HELD_OUT: Final = {"prompts": ["/data/h", "/held-out"], "everySteps": 4}

REFUSED: Final[dict[str, Refusal]] = {
    "a variable of Eyas": _reserved("consumers", "EYAS_ATTEMPT"),
    "a rank": _reserved("consumers", "RANK"),
    "a rendezvous": _reserved("producers", "MASTER_ADDR"),
    "an option of torchrun": _reserved("services", "PET_NNODES"),
    "what torchrun tells": _reserved("services", "TORCHELASTIC_RUN_ID"),
    "another loader": _reserved("producers", "LD_PRELOAD"),
    "other modules": _reserved(NODES, "PYTHONPATH"),
    "another home": _reserved("producers", "HOME"),
    "other threads than the spec's": _reserved("consumers", "OMP_NUM_THREADS"),
    "a variable twice": Refusal(
        changes=_variables("services", "A", "B", "A"),
        field=f"spec.services.{_MAIN}.env",
        says="must name each variable once",
    ),
    "a label of Eyas": _key("consumers", "labels", "eyas.dev/attempt"),
    "a label that Eyas sets by custom": _key("services", "labels", "app.kubernetes.io/name"),
    "an annotation of Eyas": _key(NODES, "annotations", "eyas.dev/config"),
    "a selector that no node can have": Refusal(
        changes=_pod(NODES, nodeSelector={"pool": "a/b"}),
        field=f"spec.{NODES}.template.spec.nodeSelector[pool]",
        says=_LABEL,
    ),
    "a label with a blank": _label("a b"),
    "a label that is too long": _label("a" * 64),
    "a label that ends with a dot": _label("a."),
    "descending layers": _layers(3, 2, 9),
    "last layers out of order": _layers(2, 9, 3),
    "a layer twice": _layers(2, 9, 9),
    "too few bytes in the store": _bytes("store.maxResidentBytes", "1023Ki"),
    "too few bytes as a number": _bytes("store.maxResidentBytes", 2**20 - 1),
    "too many bytes": _bytes("volumes.checkpoints.size", "1024.1Pi"),
    "negative bytes": _bytes("volumes.metadata.size", -1),
    "an empty segment": _bytes("store.mooncake.nodes.segmentSize", "0"),
    "scratch space without a limit": Refusal(
        changes=_pod("producers", volumes=[{"name": "x-a", "emptyDir": {"sizeLimit": 0}}]),
        field="spec.producers.template.spec.volumes[0].emptyDir.sizeLimit",
        says=_RANGE,
    ),
    "a unit that is none": _amount("producers", memory="4GB"),
    "less than no processors": _amount("consumers", cpu=-1),
    "a mount in a mount of Eyas": _mount("producers", "/etc/eyas/tokens/x"),
    "a mount on a mount of Eyas": _mount("consumers", "/tmp/"),
    "a mount over a mount of Eyas": _mount("services", "/etc/"),
    "a mount on the termination log": _mount(NODES, "/dev/termination-log"),
    "a mount by a detour": _mount("producers", "/a/../tmp", _DETOUR),
    "a mount by a detour at the end": _mount("producers", "/a/.", _DETOUR),
    "a mount with an empty part": _mount("producers", "/a//b", _DETOUR),
    "two mounts at one place": _apart("producers", "/a", "/b", "/a/"),
    "a mount in another one": _apart("consumers", "/a/b", "/a"),
    "a place outside the volume": _inner("producers", "a/../../b"),
    "a place of the node": _inner("producers", "/etc"),
    "a volume twice": _volumes("services", "must name each volume once", _volume("x-a"), _volume("x-a")),
    "a volume without a source": _volumes(NODES, _SOURCE, _volume("x-a"), {"name": "x-b"}),
    "a volume with two sources": _volumes("producers", _SOURCE, _TWO_SOURCES),
    "a model on no volume": _no_volume("/model", "target.model", {"target.model": "/model"}),
    "a model beside the volume": _no_volume("/modelsx/a", "target.model", {"target.model": "/modelsx/a"}),
    "prompts by a detour": _no_volume("/data/../x", "data.prompts[0]", {"data.prompts": ["/data/../x"]}),
    "features on no volume": _no_volume("f", "data.features[0]", {"data.features": ["f"], "data.prompts": []}),
    "a first draft on no volume": _no_volume("/tmp/d", "draft.initialFrom", {"draft.initialFrom": "/tmp/d"}),
    "held-out prompts on no volume": _no_volume("/held-out", "evaluation.prompts[1]", {"evaluation": _HELD_OUT}),
} | {f"a mount of no volume in {role}": undeclared(role) for role in ROLES}


def _most() -> dict[str, object]:
    """As many entries and characters as the lists may have: the API server bounds what rules may cost at work, too."""
    main = {
        "env": [{"name": f"{'A' * 120}_{number}", "value": "1"} for number in range(64)],
        "volumeMounts": [{"name": f"x-{number}", "mountPath": f"/{'a' * 1000}{number}"} for number in range(10, 26)],
    }
    template = _template(main, volumes=[_volume(f"x-{number}") for number in range(10, 26)])
    labels = {f"{'a' * 60}{number}": "v" for number in range(64)}
    pools: dict[str, object] = {f"{role}.template": {"metadata": {"labels": labels}} | template for role in ROLES}
    return pools | {"data.prompts": [f"/data/{'p' * 1000}{number}" for number in range(1024)]}


TAKEN: Final[dict[str, dict[str, object]]] = {
    "a drill": _variables("consumers", "EYAS_TRAINER", "EYAS_CAPTURE"),
    "names that only look reserved": _variables(
        "producers", "RANKS", "HOMES", "MY_EYAS_X", "MYPYTHON", "EYAS", "A_RANK"
    ),
    "keys of others": _keys(
        "services", "labels", "team", "kueue.x-k8s.io/queue-name", "my-eyas.dev/a", "eyas.dev.org/a"
    ),
    "annotations of others": _keys("producers", "annotations", "kubernetes.io/a", "app.kubernetes.iox/a"),
    "an empty label": {"producers.template": {"metadata": {"labels": {"a": "", "b": "A.b_c-9", "c": "a" * 63}}}},
    "the first and the last layer": {"target.captureLayers": [0, 1, 1000]},
    "the fewest bytes": {"store.maxResidentBytes": "1Mi", "volumes.checkpoints.size": 2**20},
    "the fewest bytes as text": {"store.maxResidentBytes": "1048576", "store.mooncake.nodes.segmentSize": "1048.576k"},
    "the most bytes": {"volumes.checkpoints.size": "1024Pi", "volumes.metadata.size": 2**60},
    "amounts": _limits("consumers", cpu="500m", memory="1.5Gi", **{"example.com/a": 1, "example.com/b": "2e3"}),
    "mounts beside those of Eyas": _mounts("producers", "/tmpfs", "/etc/eyas/other", "/dev/shm2", "/models2", "/a..b"),
    "mounts side by side": _mounts("consumers", "/a", "/ab", "/b/a/", "/b/ab", "/.cache"),
    "one volume in two places": _mounts(NODES, "/a", "/b", subPath="c..d/e"),
    "several volumes": _pod("services", volumes=[_volume("x-a"), _volume("x-b")]),
    "as much as fits": _most(),
    "paths on volumes": {"target.model": "/models", "data.prompts": ["/data/a..b", "/store/p", "/checkpoints/x/"]},
}
