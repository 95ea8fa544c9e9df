"""The API server as a person reaches it: their kubeconfig, context and namespace, as kubectl would choose them."""

import os
from pathlib import Path
from typing import Any, Final

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, list_kube_config_contexts, load_kube_config

from eyas_contract.errors import UserError
from eyas_operator.backends.kubernetes.client import KubeClient
from eyas_operator.backends.kubernetes.connect import connect

VARIABLE: Final = "KUBECONFIG"
USER_AGENT: Final = "kubectl-eyas"
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_NAMESPACE: Final = "default"


def _files(kubeconfig: str) -> str:
    """The kubeconfig files that there are; empty: this is a pod with an account."""
    named = kubeconfig or os.environ.get(VARIABLE, "") or str(Path.home() / ".kube" / "config")
    there = [file for file in named.split(os.pathsep) if Path(file).is_file()]
    if there or (not kubeconfig and _ACCOUNT.is_dir()):
        return os.pathsep.join(there)
    raise UserError(f"there is no kubeconfig at {named}: say --kubeconfig FILE, or set {VARIABLE}")


def _own_namespace() -> str:
    return (_ACCOUNT / "namespace").read_text().strip()


async def open_for_person(kubeconfig: str, context: str) -> tuple[KubeClient, str]:
    """A client and the namespace that is meant where none is named.

    Empty arguments mean what kubectl takes them for: `KUBECONFIG`, else `~/.kube/config`, else, in a pod, its account;
    and the current context. Raises `UserError` where none of these is usable.
    """
    chosen = _files(kubeconfig)
    if not chosen:
        return KubeClient(await connect()), _own_namespace()
    configuration: Any = Configuration()
    try:
        contexts, current = list_kube_config_contexts(chosen)
        await load_kube_config(
            config_file=chosen, context=context or None, client_configuration=configuration, persist_config=False
        )
    except (ConfigException, OSError) as error:
        raise UserError(f"cannot use the kubeconfig {chosen}: {error}") from error
    named = {entry["name"]: entry.get("context", {}) for entry in contexts}
    used = named.get(context) if context else current.get("context", {})
    api: Any = ApiClient(configuration)
    api.user_agent = USER_AGENT
    return KubeClient(api), (used or {}).get("namespace") or DEFAULT_NAMESPACE
