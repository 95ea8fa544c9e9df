"""A private API server for one benchmark: etcd and kube-apiserver on free loopback ports, with an audit log.

Two users. `player` may do everything: it makes jobs and plays kubelets. `operator` may do what the chart's Role lists.
Every request of the operator, and every change that the player makes to a pod, is in the audit log with the server's
own times, so that reactions are measured by one clock and by neither client.
"""

import base64
import json
import secrets
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import urllib3
import yaml

from eyas_cli.bench.operator.programs import free_ports, program, running
from eyas_contract.errors import Transient
from eyas_operator.api.crd import crd
from eyas_operator.rights import JOB_RIGHTS, OWN_RIGHTS

NAMESPACE: Final = "default"
READY_SECONDS: Final = 120.0
CALL_SECONDS: Final = 60.0
CONNECTIONS: Final = 8
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
_METADATA: Final = {"level": "Metadata"}
_AUDIT: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        _METADATA | {"users": ["operator"]},
        _METADATA | {"users": ["player"], "resources": [{"resources": ["pods/status"]}], "verbs": ["patch"]},
        {"level": "None"},
    ],
}


class ControlPlane:
    """One running API server."""

    def __init__(self, folder: Path, port: int, tokens: dict[str, str]) -> None:
        self.folder = folder
        self.audit_log = folder / "audit.log"
        self._tokens = tokens
        self._port = port
        self._pool: urllib3.HTTPSConnectionPool | None = None

    @property
    def _ca(self) -> Path:
        return self.folder / "certs" / "apiserver.crt"

    def kubeconfig(self) -> Path:
        """A kubeconfig file of the operator."""
        certificate = base64.b64encode(self._ca.read_bytes()).decode()
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bench",
            "clusters": [{
                "name": "bench",
                "cluster": {"server": f"https://127.0.0.1:{self._port}", "certificate-authority-data": certificate},
            }],
            "users": [{"name": "operator", "user": {"token": self._tokens["operator"]}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "operator"}}],
        }  # fmt: skip
        file = self.folder / "kubeconfig.yaml"
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return file

    def ask(
        self, method: str, path: str, body: object = None, *, content: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        """Status and JSON of one request of the player's. Raises `Transient` when no answer comes."""
        if self._pool is None:
            context = ssl.create_default_context(cafile=str(self._ca))
            self._pool = urllib3.HTTPSConnectionPool(
                "127.0.0.1", self._port, ssl_context=context, maxsize=CONNECTIONS, block=True
            )
        headers = {
            "Authorization": f"Bearer {self._tokens['player']}",
            "Content-Type": content,
            "Accept": accept or "application/json",
        }
        data = None if body is None else json.dumps(body).encode()
        try:
            answer = self._pool.request(method, path, body=data, headers=headers, timeout=CALL_SECONDS, retries=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(f"{method} {path}: no answer: {error}") from error
        return answer.status, json.loads(answer.data) if answer.data[:1] == b"{" else answer.data.decode()

    def must(self, method: str, path: str, body: object = None, **options: str) -> Any:  # noqa: ANN401 any object
        """As `ask`, for what has to succeed. Raises `Transient` when it is refused."""
        status, answer = self.ask(method, path, body, **options)
        if status >= 300:
            raise Transient(f"{method} {path}: {status}: {str(answer)[:300]}")
        return answer

    def ready(self) -> bool:
        """It answers."""
        if not self._ca.exists():
            return False
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except (Transient, OSError):
            # The first certificate may have been read half.
            self._pool = None
            return False


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """An API server below `folder` that serves our kind and knows the operator's rights; gone after the block.

    Raises `UserError` when its programs are missing, `Transient` when it does not start.
    """
    with ExitStack() as stack:
        plane = _started(folder, stack)
        _install(plane)
        yield plane


def _started(folder: Path, stack: ExitStack) -> ControlPlane:
    for name in ("bin", "certs", "etcd"):
        (folder / name).mkdir(parents=True)
    etcd_port, peer_port, port = free_ports(3)
    etcd = [
        str(program("etcd")), f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
        f"--listen-client-urls=http://127.0.0.1:{etcd_port}", f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
        f"--listen-peer-urls=http://127.0.0.1:{peer_port}", f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}", "--quota-backend-bytes=8589934592",
    ]  # fmt: skip
    stack.enter_context(running(etcd, folder / "etcd.log"))
    for name in ("kube-apiserver", "kubeadm"):
        # One binary, called by its names.
        (folder / "bin" / name).symlink_to(program("kube"))
    tokens = {user: secrets.token_hex(24) for user in ("player", "operator")}
    groups = {"player": ',"system:masters"'}
    listed = folder / "tokens.csv"
    listed.touch(mode=0o600)
    listed.write_text("".join(f"{token},{user},{user}{groups.get(user, '')}\n" for user, token in tokens.items()))
    keys = [str(folder / "bin" / "kubeadm"), "init", "phase", "certs", "sa", f"--cert-dir={folder}"]
    subprocess.run(keys, check=True, capture_output=True, timeout=60, env={"HOME": str(folder)})  # noqa: S603
    (folder / "audit.json").write_text(json.dumps(_AUDIT))
    server = stack.enter_context(running(_command(folder, port, etcd_port), folder / "apiserver.log"))
    plane = ControlPlane(folder, port, tokens)
    wait_for(lambda: plane.ready() or server.poll() is not None, "the API server is ready", READY_SECONDS)
    if server.poll() is not None:
        tail = (folder / "apiserver.log").read_text(errors="replace").splitlines()[-1:]
        raise Transient(f"the API server ended: {tail}")
    return plane


def _command(folder: Path, port: int, etcd_port: int) -> list[str]:
    return [
        str(folder / "bin" / "kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--secure-port={port}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none", f"--cert-dir={folder / 'certs'}", "--authorization-mode=RBAC",
        f"--token-auth-file={folder / 'tokens.csv'}", f"--service-account-key-file={folder / 'sa.pub'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}", "--service-cluster-ip-range=10.96.0.0/14",
        "--service-account-issuer=https://kubernetes.default.svc", "--profiling=false",
        f"--audit-policy-file={folder / 'audit.json'}", f"--audit-log-path={folder / 'audit.log'}",
    ]  # fmt: skip


def _install(plane: ControlPlane) -> None:
    """The kind, the operator's rights, and the account that pods run as."""
    kind = crd()
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind['metadata']['name']}"
    plane.must("PATCH", f"{path}?fieldManager=bench&force=true", kind, content=APPLY)
    served = "/apis/eyas.dev/v1alpha1/disaggtrainingjobs"
    wait_for(lambda: plane.ask("GET", served)[0] == 200, "the kind is served", READY_SECONDS)
    rules = [
        {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
        for right in (*JOB_RIGHTS, *OWN_RIGHTS)
    ]
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
    plane.must("POST", f"{roles}/roles", {"metadata": {"name": "operator"}, "rules": rules})
    plane.must("POST", f"{roles}/rolebindings", {
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
        "subjects": [{"kind": "User", "name": "operator"}],
    })  # fmt: skip
    account = {"metadata": {"name": "default"}}
    wait_for(
        lambda: plane.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", account)[0] in (201, 409),
        "the namespace is there", READY_SECONDS,
    )  # fmt: skip


def wait_for(condition: Callable[[], object], what: str, seconds: float, *, pause_seconds: float = 0.1) -> None:
    """Wait until `condition()` is true. Raises `Transient` that says what never was."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise Transient(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause_seconds)
