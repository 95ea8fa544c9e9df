"""Finds the API server: inside a pod by its service account, elsewhere by a kubeconfig file.

Proxies of the environment are not used: in a cluster the API server is near, and a kubeconfig names its own proxy.
"""

from pathlib import Path
from typing import Any, Final

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from eyas_contract.errors import UserError

CONNECTIONS_MAX: Final = 32
USER_AGENT: Final = "eyas-operator"


async def connect(kubeconfig: Path | None = None) -> Any:  # noqa: ANN401 - an ApiClient; the client has no types
    """An `ApiClient`, without a request being made. None: the service account of this pod.

    Raises `UserError` when there is no usable account or file.
    """
    configuration: Any = Configuration()
    try:
        if kubeconfig is None:
            load_incluster_config(client_configuration=configuration)
        else:
            await load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    except (ConfigException, OSError) as error:
        raise UserError(f"cannot find the API server by {kubeconfig or 'the service account'}: {error}") from error
    configuration.connection_pool_maxsize = CONNECTIONS_MAX
    configuration.client_session_kwargs = {"trust_env": False}
    client: Any = ApiClient(configuration)
    client.user_agent = USER_AGENT
    return client
