"""What this user may do, and whether their clock agrees with the cluster's."""

from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from eyas_cli.checks import Check
from eyas_cli.cluster.access import Access
from eyas_operator import names

CLOCK_SECONDS_MAX: Final = 30.0
"""Events and incidents are shown in this machine's time; nothing else depends on it."""


class Need(NamedTuple):
    """Rights that something takes."""

    purpose: str
    rights: tuple[tuple[str, str, str], ...]
    """(verb, group, resource)."""
    role: str
    """The chart's ClusterRole that gives it."""


NEEDS: Final = (
    Need(
        "see jobs: status, events",
        (("get", names.GROUP, names.PLURAL), ("list", "", "pods"), ("list", "events.k8s.io", "events")),
        "viewer",
    ),
    Need("read logs", (("get", "", "pods/log"),), "viewer"),
    Need("make jobs", (("create", names.GROUP, names.PLURAL), ("delete", names.GROUP, names.PLURAL)), "editor"),
    Need("drills: kill", (("delete", "", "pods"), ("create", "", "pods/eviction")), "editor"),
    Need("live numbers, plot", (("create", "", "pods/portforward"), ("get", "", "secrets")), "curves"),
)


async def rights(access: Access) -> list[Check]:
    """What each purpose takes, asked of the API server itself."""
    checks = []
    for need in NEEDS:
        missing = [f"{verb} {resource}" for verb, group, resource in need.rights
                   if not await _may(access, verb, group, resource)]  # fmt: skip
        text = (
            f"{need.purpose}: you may"
            if not missing
            else (
                f"{need.purpose}: you may not {', '.join(missing)} in {access.namespace}; "
                f"the chart's ClusterRole {need.role} gives it"
            )
        )
        checks.append(Check("rights", "warning" if missing else "ok", text))
    return checks


async def _may(access: Access, verb: str, group: str, resource: str) -> bool:
    plural, _, part = resource.partition("/")
    asked = {"namespace": access.namespace, "verb": verb, "group": group, "resource": plural, "subresource": part}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    raw = await access.client.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=body)
    answer: dict[str, Any] = msgspec.json.decode(raw)
    return bool(answer["status"].get("allowed"))


async def clock(access: Access, now: datetime) -> list[Check]:
    """This machine's clock against the API server's."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    raw = await access.client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=body)
    answer: dict[str, Any] = msgspec.json.decode(raw)
    user = answer.get("status", {}).get("userInfo", {}).get("username", "")
    checks = [Check("user", "ok", user or "unknown")]
    there = answer.get("metadata", {}).get("creationTimestamp")
    if there:
        apart = abs((datetime.fromisoformat(there) - now).total_seconds())
        level = "ok" if apart <= CLOCK_SECONDS_MAX else "warning"
        text = f"{apart:.0f} s apart from the API server's" + ("" if level == "ok" else ": ages shown here are wrong")
        checks.append(Check("clock", "ok" if apart <= CLOCK_SECONDS_MAX else "warning", text))
    return checks
