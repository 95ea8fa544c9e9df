"""The one place that makes a pod: Pod Security *restricted*, probes, environment, resources, volumes.

Every pod runs our supervisor as PID 1 and restarts nothing through the kubelet: `restartPolicy: Never`, because a new
pod has a new ordinal or attempt. A pod that a job's template describes gets only what the template's type can express.
"""

from dataclasses import dataclass
from typing import Final

from eyas_contract import env
from eyas_operator import names
from eyas_operator.api.base import render_quantity
from eyas_operator.api.pools import FabricMode
from eyas_operator.api.rules import template_digest
from eyas_operator.api.template import PodTemplate
from eyas_operator.desired import volumes
from eyas_operator.desired.build import Build, owner
from eyas_operator.names import PodIdentity
from eyas_operator.world import Manifest

USER_ID: Final = 65532
"""The images' unprivileged user."""
UNREACHABLE_SECONDS: Final = 30
"""How long a pod stays on a node that is not ready or unreachable."""
TMP_BYTES: Final = 20 * 2**30
POD_BYTES: Final = 64 * 2**20
_GPU: Final = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodShape:
    """What distinguishes the pods of one role."""

    template: PodTemplate
    entrypoint: str
    """Module that the supervisor runs, as `python -m`."""
    processes: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    tokens: tuple[str, ...] = ()
    """Token files that this role may hold."""
    reader_tokens: bool = False
    """Also the read tokens (metadata only)."""
    claims: tuple[tuple[str, str, bool], ...] = ()
    """(volume, claim name, read-only)."""
    ports: tuple[tuple[str, int], ...] = ()
    requests: tuple[tuple[str, str], ...] = ()
    limits: tuple[tuple[str, str], ...] = ()
    gpus: int = 0
    fabric: bool = False
    """May use RDMA devices."""
    shared_memory_bytes: int = 0
    grace_seconds: int = 10


def grace_seconds(shape: PodShape) -> int:
    """Seconds between SIGTERM and SIGKILL."""
    return shape.template.spec.termination_grace_period_seconds or shape.grace_seconds


def pod(build: Build, identity: PodIdentity, shape: PodShape) -> Manifest:
    """The manifest of one pod."""
    name = identity.pod_name(build.job)
    template = shape.template
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": build.job.namespace,
            "labels": template.metadata.labels | names.pod_labels(build.job, identity),
            "annotations": template.metadata.annotations | _annotations(build, identity),
            "ownerReferences": [owner(build.job)],
        },
        "spec": _spec(build, identity, shape, name),
    }


def _annotations(build: Build, identity: PodIdentity) -> dict[str, str]:
    digest = template_digest(build.spec, identity.role)
    return {names.ANNOTATION_CONFIG: build.config_name} | ({names.ANNOTATION_TEMPLATE: digest} if digest else {})


def _spec(build: Build, identity: PodIdentity, shape: PodShape, name: str) -> Manifest:
    chosen = shape.template.spec
    spec: Manifest = {
        "restartPolicy": "Never",
        "hostname": identity.hostname,
        "subdomain": names.peers_service(build.job),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds(shape),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(build, identity, shape, name)],
        "volumes": _volumes(build, shape),
        "tolerations": _tolerations(shape.template),
    }
    affinity = _affinity(build, shape.template)
    optional = {
        "nodeSelector": chosen.node_selector,
        "affinity": affinity,
        "topologySpreadConstraints": list(chosen.topology_spread_constraints),
        "priorityClassName": chosen.priority_class_name,
        "schedulerName": chosen.scheduler_name,
        "runtimeClassName": chosen.runtime_class_name,
        "imagePullSecrets": [{"name": reference.name} for reference in chosen.image_pull_secrets],
    }
    return spec | {key: value for key, value in optional.items() if value}


def _container(build: Build, identity: PodIdentity, shape: PodShape, name: str) -> Manifest:
    container = shape.template.container
    python = build.environment.python
    supervisor = [python, "-m", "eyas_runtime.supervisor", "--role", identity.role.value]
    processes = ["--processes", str(shape.processes)] if shape.processes > 1 else []
    fabric = shape.fabric and build.spec.fabric.mode is not FabricMode.NONE
    built: Manifest = {
        "name": names.CONTAINER,
        "image": container.image or build.environment.image(identity.role),
        "command": [*supervisor, *processes, "--", python, "-m", shape.entrypoint],
        "env": _environment(build, identity, shape, name),
        "resources": _resources(build, shape, fabric=fabric),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]} | ({"add": ["IPC_LOCK"]} if fabric else {}),
        },
        "readinessProbe": {
            # Not a command: each one would start a process in the container, once a second.
            "tcpSocket": {"port": env.READY_PORT_NUMBER},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 2,
        },
        "terminationMessagePath": build.environment.termination_log(build.job, name),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(build, shape, name),
    }
    if container.image_pull_policy:
        built["imagePullPolicy"] = container.image_pull_policy
    if shape.ports:
        built["ports"] = [{"name": label, "containerPort": port} for label, port in shape.ports]
    return built


def _environment(build: Build, identity: PodIdentity, shape: PodShape, name: str) -> list[Manifest]:
    path = build.environment.mount_path
    scratch = path(build.job, name, volumes.TMP)
    values = {
        env.CONFIG_FILE: f"{path(build.job, name, volumes.CONFIG)}/{volumes.JOB_FILE}",
        env.TOKEN_DIRECTORY: path(build.job, name, volumes.TOKENS),
        env.JOB_UID: build.job.job_uid,
        env.ROLE: identity.role.value,
        env.REPLICA_INDEX: str(identity.index),
        env.POD_DIRECTORY: path(build.job, name, volumes.POD),
        env.TERMINATION_LOG: build.environment.termination_log(build.job, name),
        env.GRACE_SECONDS: str(grace_seconds(shape)),
        "HOME": scratch,
        "TMPDIR": scratch,
        "XDG_CACHE_HOME": f"{scratch}/cache",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    } | dict(shape.environment)
    built: list[Manifest] = [{"name": key, "value": value} for key, value in values.items()]
    address = build.environment.own_address(build.job, identity)
    if address is not None:
        built.append({"name": env.HOST_ADDRESS, "value": address})
    else:
        built.append({"name": env.HOST_ADDRESS, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
        built.append({"name": env.READY_PORT, "value": str(env.READY_PORT_NUMBER)})
    # None of a template's names is one of ours: `api.template_checks` refuses them.
    return built + [{"name": entry.name, "value": entry.value} for entry in shape.template.container.env]


def _resources(build: Build, shape: PodShape, *, fabric: bool) -> Manifest:
    chosen = shape.template.container.resources
    extended: Manifest = {_GPU: shape.gpus} if shape.gpus else {}
    if fabric:
        extended[build.spec.fabric.resource_name] = build.spec.fabric.count
    limits = dict(shape.limits) | chosen.limits
    requests = dict(shape.requests) | chosen.requests
    return {"requests": requests | extended, "limits": limits | extended}


def _mounts(build: Build, shape: PodShape, name: str) -> list[Manifest]:
    def mount(volume: str, *, shared: bool = False, read_only: bool = False) -> Manifest:
        path = build.environment.mount_path(build.job, "" if shared else name, volume)
        return {"name": volume, "mountPath": path} | ({"readOnly": True} if read_only else {})

    mounts = [
        mount(volumes.CONFIG, read_only=True),
        mount(volumes.TOKENS, read_only=True),
        mount(volumes.POD),
        mount(volumes.TMP),
    ]
    if shape.shared_memory_bytes:
        mounts.append(mount(volumes.SHM))
    for volume, _, read_only in shape.claims:
        mounts.append(mount(volume, shared=volume != volumes.METADATA, read_only=read_only))
    for chosen in shape.template.container.volume_mounts:
        extra: Manifest = {"name": chosen.name, "mountPath": chosen.mount_path, "readOnly": chosen.read_only}
        mounts.append(extra | ({"subPath": chosen.sub_path} if chosen.sub_path else {}))
    return mounts


def _volumes(build: Build, shape: PodShape) -> list[Manifest]:
    built: list[Manifest] = [
        {"name": volumes.CONFIG, "configMap": {"name": build.config_name}},
        {"name": volumes.TOKENS, "projected": {"sources": _token_sources(build, shape), "defaultMode": 0o440}},
        {"name": volumes.POD, "emptyDir": {"sizeLimit": render_quantity(POD_BYTES)}},
        {"name": volumes.TMP, "emptyDir": {"sizeLimit": render_quantity(TMP_BYTES)}},
    ]
    if shape.shared_memory_bytes:
        limit = render_quantity(shape.shared_memory_bytes)
        built.append({"name": volumes.SHM, "emptyDir": {"medium": "Memory", "sizeLimit": limit}})
    for volume, claim, read_only in shape.claims:
        source = {"claimName": claim} | ({"readOnly": True} if read_only else {})
        built.append({"name": volume, "persistentVolumeClaim": source})
    for chosen in shape.template.spec.volumes:
        extra = chosen.model_dump(by_alias=True, exclude_none=True)
        if chosen.empty_dir is not None:
            extra["emptyDir"]["sizeLimit"] = render_quantity(chosen.empty_dir.size_limit)
        built.append(extra)
    return built


def _token_sources(build: Build, shape: PodShape) -> list[Manifest]:
    items = [{"key": key, "path": key} for key in shape.tokens]
    sources: list[Manifest] = [{"secret": {"name": names.tokens_secret(build.job), "items": items}}]
    if shape.reader_tokens:
        reader = [{"key": env.TOKEN_READER, "path": env.TOKEN_READER}]
        sources.append({"secret": {"name": names.reader_secret(build.job), "items": reader}})
    return sources


def _tolerations(template: PodTemplate) -> list[Manifest]:
    ours = [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": UNREACHABLE_SECONDS,
        }
        for taint in ("not-ready", "unreachable")
    ]
    chosen = [entry.model_dump(by_alias=True, exclude_none=True) for entry in template.spec.tolerations]
    return ours + chosen


def _affinity(build: Build, template: PodTemplate) -> Manifest:
    """The template's affinity, and a strong preference against nodes on which this job's pods failed."""
    struck = sorted(entry.node for entry in build.status.strikes if entry.strikes >= build.settings.node_strikes_max)
    affinity: Manifest = dict(template.spec.affinity)
    if not struck:
        return affinity
    avoid = [
        {
            "weight": 100,
            "preference": {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [node]}]},
        }
        for node in struck
    ]
    given = affinity.get("nodeAffinity")
    chosen = dict(given) if isinstance(given, dict) else {}
    key = "preferredDuringSchedulingIgnoredDuringExecution"
    present = chosen.get(key)
    chosen[key] = [*(present if isinstance(present, list) else []), *avoid]
    return affinity | {"nodeAffinity": chosen}
