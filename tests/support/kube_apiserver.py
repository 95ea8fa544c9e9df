"""A private API server: etcd and kube-apiserver on free loopback ports, without controllers and without nodes.

It validates, defaults, authorises (RBAC) and keeps objects as any cluster does; nobody schedules, starts or collects
anything: a test that needs a kubelet plays it. Both processes die with the thread that started them.
"""

import base64
import json
import os
import secrets
import socket
import ssl
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import urllib3
import yaml

from support.kube_tools import tool
from support.waiting import wait_until

STARTS_MAX: Final = 3
"""A free port may be taken by another before our process binds it."""
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
_DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL", "--")
USERS: Final = ("admin", "operator", "nobody")
"""`admin` may do everything; the others what a test grants to the user of that name."""
AUDIT_LOG: Final = "audit.log"
_AUDIT: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": ["operator"]}, {"level": "None"}],
}
"""Every request of `operator` is recorded, without its content."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the API server answered."""

    status: int
    body: Any

    @property
    def message(self) -> str:
        """The sentence of a refusal."""
        return str(self.body.get("message", "")) if isinstance(self.body, dict) else str(self.body)


class KubeApiServer:
    """One running API server."""

    def __init__(self, folder: Path, port: int, tokens: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = port
        self.tokens = dict(tokens)
        self.ca_file = folder / "certs" / "apiserver.crt"
        self._pool: urllib3.HTTPSConnectionPool | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(self, user: str = "admin", *, url: str = "", namespace: str = "default") -> Path:
        """A kubeconfig file for one of `USERS`; `url` may name a proxy that speaks TLS or plain HTTP."""
        server: dict[str, str] = {"server": url or self.url}
        if server["server"].startswith("https:"):
            server["certificate-authority-data"] = base64.b64encode(self.ca_file.read_bytes()).decode()
        context = {"cluster": "test", "user": user, "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": "test", "context": context}],
        }
        file = self.folder / f"kubeconfig-{user}-{secrets.token_hex(4)}.yaml"
        file.write_text(yaml.safe_dump(content))
        file.chmod(0o600)
        return file

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content: str = "application/json",
        accept: str = "application/json",
        user: str = "admin",
    ) -> Reply:
        """One request as `user`; the answer whatever its status."""
        if self._pool is None:
            context = ssl.create_default_context(cafile=str(self.ca_file))
            self._pool = urllib3.HTTPSConnectionPool("127.0.0.1", self.port, ssl_context=context, maxsize=4)
        headers = {"Authorization": f"Bearer {self.tokens[user]}", "Content-Type": content, "Accept": accept}
        data = None if body is None else json.dumps(body).encode()
        answer = self._pool.request(method, path, body=data, headers=headers, timeout=30.0, retries=False)
        try:
            return Reply(answer.status, json.loads(answer.data))
        except ValueError:
            return Reply(answer.status, answer.data.decode(errors="replace"))

    def must(self, method: str, path: str, body: object = None, **options: str) -> Any:  # noqa: ANN401 - any object
        """As `ask`, and the test fails unless the answer is a success."""
        reply = self.ask(method, path, body, **options)
        assert reply.status < 300, f"{method} {path}: {reply.status}: {reply.message}"
        return reply.body

    def namespace(self, prefix: str = "test", *, enforce: str = "restricted") -> str:
        """A fresh namespace with Pod Security `enforce`, and the account that pods run as."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        labels = {"pod-security.kubernetes.io/enforce": enforce}
        self.must("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        self.must("POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        return name

    def grant(self, namespace: str, rules: Iterable[Mapping[str, object]], *, user: str = "operator") -> None:
        """Allow `user` what these RBAC rules say, in one namespace."""
        name = f"{user}-{secrets.token_hex(4)}"
        roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        self.must("POST", f"{roles}/roles", {"metadata": {"name": name}, "rules": list(rules)})
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "User", "name": user}],
        }
        self.must("POST", f"{roles}/rolebindings", binding)

    def audit(self, namespace: str) -> list[dict[str, Any]]:
        """What `operator` asked for in one namespace: the server's own records, complete lines only."""
        text = (self.folder / AUDIT_LOG).read_text()
        records = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [record for record in records if record.get("objectRef", {}).get("namespace") == namespace]

    def install_crd(self, manifest: Mapping[str, Any]) -> None:
        """Install or update a CustomResourceDefinition, and wait until it is served."""
        name = manifest["metadata"]["name"]
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        self.must("PATCH", f"{path}?fieldManager=tests&force=true", manifest, content=APPLY)

        def served() -> bool:
            conditions = self.must("GET", path).get("status", {}).get("conditions") or []
            return any(it["type"] == "Established" and it["status"] == "True" for it in conditions)

        wait_until(served, f"{name} is established")
        spec = manifest["spec"]
        group = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        wait_until(lambda: self.ask("GET", group).status == 200, f"{group} is served")

    def close(self) -> None:
        """Drop the connections of this object; the processes are ended by `running`."""
        if self._pool is not None:
            self._pool.close()


@contextmanager
def running(folder: Path) -> Iterator[KubeApiServer]:
    """An API server with an empty etcd below `folder`, ready to answer."""
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, STARTS_MAX + 1):
        with ExitStack() as stack:
            try:
                server = _start(folder / str(attempt), stack)
            except AssertionError:
                if attempt == STARTS_MAX:
                    raise
                continue
            stack.callback(server.close)
            yield server
            return


def _start(folder: Path, stack: ExitStack) -> KubeApiServer:
    for name in ("bin", "certs", "etcd"):
        (folder / name).mkdir(parents=True)
    etcd_port, peer_port, port = free_ports(3)
    etcd = [
        str(tool("etcd")), f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
        f"--listen-client-urls=http://127.0.0.1:{etcd_port}", f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
        f"--listen-peer-urls=http://127.0.0.1:{peer_port}", f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
    ]  # fmt: skip
    stack.enter_context(_process(etcd, folder / "etcd.log"))
    program = folder / "bin" / "kube-apiserver"
    program.symlink_to(tool("kube"))
    tokens = {user: secrets.token_hex(24) for user in USERS}
    _write_tokens(folder / "tokens.csv", tokens)
    _write_account_keys(folder)
    (folder / "audit-policy.json").write_text(json.dumps(_AUDIT))
    process = stack.enter_context(
        _process(_command(program, folder, port, etcd_port), folder / "apiserver.log"),
    )
    server = KubeApiServer(folder, port, tokens)
    wait_until(lambda: _ready(server, process), lambda: f"the API server is ready: {_tail(folder)}")
    return server


def _command(program: Path, folder: Path, port: int, etcd_port: int) -> list[str]:
    return [
        str(program), f"--etcd-servers=http://127.0.0.1:{etcd_port}", f"--secure-port={port}",
        "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
        f"--cert-dir={folder / 'certs'}", f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC",
        f"--service-account-key-file={folder / 'sa.pub'}", f"--service-account-signing-key-file={folder / 'sa.key'}",
        "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16",
        "--allow-privileged=true", "--profiling=false",
        f"--audit-policy-file={folder / 'audit-policy.json'}", f"--audit-log-path={folder / AUDIT_LOG}",
    ]  # fmt: skip


def _write_tokens(file: Path, tokens: Mapping[str, str]) -> None:
    groups = {"admin": ',"system:masters"'}
    file.write_text("".join(f"{token},{user},{user}{groups.get(user, '')}\n" for user, token in tokens.items()))
    file.chmod(0o600)


def _write_account_keys(folder: Path) -> None:
    """`sa.key` and `sa.pub`, with which the server signs the tokens of service accounts."""
    kubeadm = folder / "bin" / "kubeadm"
    kubeadm.symlink_to(tool("kube"))
    command = [kubeadm, "init", "phase", "certs", "sa", f"--cert-dir={folder}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=_environment(folder))


def _ready(server: KubeApiServer, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, f"the API server ended: {_tail(server.folder)}"
    if not server.ca_file.exists():
        return False
    try:
        return server.ask("GET", "/readyz").status == 200
    except (urllib3.exceptions.HTTPError, OSError):
        # The first certificate may have been read half.
        server.close()
        server._pool = None
        return False


def _tail(folder: Path) -> str:
    logs = [file.read_text(errors="replace")[-1500:] for file in sorted(folder.glob("*.log"))]
    return "\n".join(logs)


@contextmanager
def _process(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*_DIE_WITH_PARENT, *command],
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            env=_environment(log.parent),
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def _environment(folder: Path) -> dict[str, str]:
    """No proxy, no configuration of the user's."""
    return {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "GOMAXPROCS": "2"}


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]
