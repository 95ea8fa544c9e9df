"""The resource itself: `DisaggTrainingJob`, and what its parts are called."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from eyas_operator.api.base import Model, Seconds
from eyas_operator.api.pools import Consumers, Fabric, Producers, Recovery, Services
from eyas_operator.api.store import Store, Volumes
from eyas_operator.api.training import Data, Draft, Evaluation, Target, Training
from eyas_operator.names import NAME_LENGTH_MAX


class Mode(StrEnum):
    """Where capture happens."""

    DISAGGREGATED = "Disaggregated"
    """In producers, on pods of their own."""
    COLOCATED = "Colocated"
    """Inside each rank, without a store between."""


class JobSpec(Model):
    """What a user asks for."""

    mode: Mode = Mode.DISAGGREGATED
    """Disaggregated captures in producers; Colocated inside the ranks, without a store hop."""
    suspend: bool = False
    """Checkpoint and stop every pod; set back to go on."""
    active_deadline_seconds: Seconds | None = None
    """Longest time the job may run, from its start or last resumption."""
    startup_deadline_seconds: Seconds = 1800
    """Longest time to the first step, from the start or last resumption."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Time after its end when the job is deleted. Checkpoints stay, unless their volume says Delete."""
    target: Target
    data: Data
    draft: Draft = Draft()
    training: Training = Training()
    evaluation: Evaluation | None = None
    """Without it nothing is held out."""
    store: Store = Store()
    volumes: Volumes = Volumes()
    producers: Producers = Producers()
    consumers: Consumers = Consumers()
    services: Services = Services()
    fabric: Fabric = Fabric()
    recovery: Recovery = Recovery()


class ObjectMeta(BaseModel):
    """The part of the resource's metadata that the operator reads."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    namespace: Annotated[str, Field(max_length=63)] = "default"


class DisaggTrainingJob(BaseModel):
    """One training of one draft."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_by_name=True, validate_by_alias=True)

    api_version: Annotated[Literal["eyas.dev/v1alpha1"], Field(alias="apiVersion")] = "eyas.dev/v1alpha1"
    kind: Literal["DisaggTrainingJob"] = "DisaggTrainingJob"
    metadata: ObjectMeta
    spec: JobSpec
    status: JsonValue = None
    """Read by `eyas_operator.api.status`, not here."""
