"""The part of a pod template that a job may set, under PodTemplateSpec's own paths.

It can express placement, resources, images and safe volumes. It cannot express host paths, host namespaces,
privileges, service accounts or secrets, so creating a job gives nobody more rights than running a plain pod.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, JsonValue, WithJsonSchema

from eyas_operator.api import template_checks as checks
from eyas_operator.api.base import Model, Name, Quantity
from eyas_operator.api.checks import once

_FREE: Final[dict[str, Any]] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
FreeObject = Annotated[dict[str, JsonValue], WithJsonSchema(_FREE)]
"""An object that is passed on as it is."""
ShortText = Annotated[str, Field(max_length=1024)]
StringMap = Annotated[dict[str, ShortText], Field(max_length=64)]
LabelMap = Annotated[dict[str, Annotated[ShortText, checks.LABEL_VALUE]], Field(max_length=64)]
_INT_OR_STRING: Final[dict[str, Any]] = {
    "x-kubernetes-int-or-string": True,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "maxLength": 32,
}
ResourceAmount = Annotated[JsonValue, WithJsonSchema(_INT_OR_STRING), checks.AMOUNT]


class EnvVar(Model):
    """One environment variable with a literal value; nothing secret belongs here."""

    name: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"), checks.FREE_VARIABLE]
    """Name of the variable; names that Eyas sets are refused."""
    value: Annotated[str, Field(max_length=4096)] = ""
    """Its literal value."""


class Resources(Model):
    """Requests and limits; GPUs and fabric resources are added from the job's own fields."""

    requests: Annotated[dict[str, ResourceAmount], Field(max_length=16)] = Field(default_factory=dict)
    """What the scheduler reserves."""
    limits: Annotated[dict[str, ResourceAmount], Field(max_length=16)] = Field(default_factory=dict)
    """What the container may use at most."""


class VolumeMount(Model):
    """Mount of one of the template's volumes."""

    name: Name
    """One of the template's volumes."""
    mount_path: Annotated[
        str, Field(min_length=2, max_length=1024, pattern=r"^/[^:]+$"), checks.SHORTEST_PATH, checks.FREE_PATH
    ]
    """Where the container sees it; apart from every path that Eyas mounts."""
    read_only: bool = False
    """Mount it without the right to write."""
    sub_path: Annotated[str, Field(max_length=1024), checks.INNER_PATH] | None = None
    """Path inside the volume."""


class Container(Model):
    """The pod's only container."""

    name: Literal["main"] = "main"
    """Always main."""
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Without it: the operator's image for this role."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """As in a pod."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), once("name", "variable")] = ()
    """Further environment variables."""
    resources: Resources = Resources()
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=16), checks.APART] = ()
    """Further mounts, of the template's own volumes; none in another one's folder."""


class ClaimSource(Model):
    """An existing claim."""

    claim_name: Name
    """Name of a claim in the job's namespace."""
    read_only: bool = False
    """Mount it without the right to write."""


class ConfigMapSource(Model):
    """An existing ConfigMap."""

    name: Name
    """Name of a ConfigMap in the job's namespace."""


class EmptyDirSource(Model):
    """Scratch space with a limit."""

    medium: Literal["", "Memory"] = ""
    """Memory: in memory, counted against the pod's memory limit."""
    size_limit: Quantity
    """The pod is evicted when it writes more."""


class Volume(Model):
    """A volume of a safe kind; exactly one source."""

    name: Annotated[str, Field(max_length=40, pattern=r"^x-[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """Begins with x-, so that it never meets one of ours."""
    persistent_volume_claim: ClaimSource | None = None
    config_map: ConfigMapSource | None = None
    empty_dir: EmptyDirSource | None = None


class LocalReference(Model):
    """Name of a pull secret; the kubelet reads it, the pod does not."""

    name: Name
    """Name of a Secret in the job's namespace."""


class Toleration(Model):
    """As in a pod."""

    key: ShortText | None = None
    """Key of the taint; without it every key."""
    operator: Literal["Exists", "Equal"] | None = None
    """Exists, or Equal to compare the value."""
    value: ShortText | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; without it every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None
    """How long NoExecute is tolerated; without it for ever."""


class PodSpec(Model):
    """The settable part of a pod's spec."""

    containers: Annotated[tuple[Container, ...], Field(min_length=1, max_length=1)] = (Container(),)
    """The one container, main."""
    node_selector: LabelMap = Field(default_factory=dict)
    """Labels that the node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that the pod stands."""
    affinity: FreeObject = Field(default_factory=dict)
    """As in a pod; passed on as it is."""
    topology_spread_constraints: Annotated[tuple[FreeObject, ...], Field(max_length=8)] = ()
    """As in a pod; passed on as they are."""
    priority_class_name: Name | None = None
    """As in a pod."""
    scheduler_name: Name | None = None
    """As in a pod."""
    runtime_class_name: Name | None = None
    """As in a pod."""
    image_pull_secrets: Annotated[tuple[LocalReference, ...], Field(max_length=8)] = ()
    """Secrets that the kubelet pulls the image with."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """Time for a checkpoint when the pod is asked to stop. Without it: 120 for consumers, 60 for
    store nodes, which move their objects meanwhile, 10 for others."""
    volumes: Annotated[tuple[Volume, ...], Field(max_length=16), once("name", "volume"), checks.ONE_SOURCE] = ()
    """Further volumes, of safe kinds."""


class TemplateMetadata(Model):
    """Labels and annotations to add, for example for a queue or a network."""

    labels: Annotated[LabelMap, checks.FREE_KEYS] = Field(default_factory=dict)
    """Labels to add; keys of eyas.dev and app.kubernetes.io are refused."""
    annotations: Annotated[StringMap, checks.FREE_KEYS] = Field(default_factory=dict)
    """Annotations to add; likewise."""


class PodTemplate(Model):
    """What a job may say about the pods of a role."""

    metadata: TemplateMetadata = TemplateMetadata()
    spec: Annotated[PodSpec, checks.DECLARED] = PodSpec()

    @property
    def container(self) -> Container:
        """The only container."""
        return self.spec.containers[0]
