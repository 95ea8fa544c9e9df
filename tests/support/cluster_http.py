"""Calls of a job's metadata service, made from inside its pods: who asks, and with which token, is what matters."""

import json
from typing import Any, Final

from support.cluster_job import ClusterJob
from support.kubectl import Kubectl

PORT: Final = 7380
_ASK: Final = """
import sys, urllib.error, urllib.request
url, token_file = sys.argv[1], (sys.argv + [""])[2]
body = b"{}" if "/v1/" in url else None
call = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
if token_file:
    call.add_header("Authorization", "Bearer " + open(token_file).readline().strip())
try:
    answer = urllib.request.urlopen(call, timeout=20)
    print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


def pod_of(job: ClusterJob, role: str) -> str:
    """Name of the only pod of that role."""
    (pod,) = job.pods(role)
    return str(pod["metadata"]["name"])


def metadata_url(job: ClusterJob) -> str:
    """Base URL of the job's service, by address: a stranger needs no DNS either."""
    service = f"{pod_of(job, 'metadata').rsplit('-metadata', 1)[0]}-metadata"
    return f"http://{job.kubectl.get('service', service)['spec']['clusterIP']}:{PORT}"


def token_file(kubectl: Kubectl, pod: str, role: str) -> str:
    """Path of a role's token in a pod that may hold it."""
    return kubectl.run("exec", pod, "--", "sh", "-c", f"echo $EYAS_TOKEN_DIRECTORY/{role}.token").strip()


def ask(kubectl: Kubectl, pod: str, url: str, token: str = "") -> tuple[int, str]:
    """(HTTP status, body) of one call from inside `pod`; `token` is the path of a file there, or nothing.

    A client sends the first line: after a rotation of the operator's key a file holds two.
    """
    code, _, body = kubectl.run("exec", pod, "--", "python", "-c", _ASK, url, *([token] if token else [])).partition(
        " "
    )
    return int(code), body


def report(job: ClusterJob) -> dict[str, Any]:
    """What the service says of the job, asked from its first consumer."""
    pod = job.pods("consumer")[0]["metadata"]["name"]
    url = f"{metadata_url(job)}/v1/status"
    code, body = ask(job.kubectl, pod, url, token_file(job.kubectl, pod, "consumer"))
    assert code == 200, body
    found: dict[str, Any] = json.loads(body)
    return found
