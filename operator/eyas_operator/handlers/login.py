"""How kopf's own HTTP session reaches the API server: the pod's account, or a kubeconfig file where there is none.

kopf asks again when the server refuses the token, so that a rotated one is read again from its file. Every request is
reported, because the streams are a good part of what an operator costs the API server.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import aiohttp
import kopf

Report = Callable[[str, str], None]
"""Told the verb and the status code (empty without an answer) of every request."""


def session(settings: kopf.OperatorSettings, report: Report) -> kopf.AiohttpSession:
    """A session with fresh credentials. Raises `kopf.LoginError` where there are none."""
    info = _pod_account(settings) or kopf.login_with_kubeconfig(settings=settings)
    if info is None:
        raise kopf.LoginError("there is neither a service account nor a kubeconfig file")
    return kopf.AiohttpSession(
        server=info.server,
        default_namespace=info.default_namespace,
        priority=info.priority,
        aiohttp_session=aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            trace_configs=[_tracing(report)],
        ),
    )


def _pod_account(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo | None:
    """The account of this pod, under the address that the kubelet gives: it works while the cluster's DNS does not."""
    info = kopf.login_with_service_account(settings=settings)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if info is None or not host:
        return info
    return replace(info, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")


def _tracing(report: Report) -> aiohttp.TraceConfig:
    async def ended(
        _session: aiohttp.ClientSession, _context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        verb = "WATCH" if "watch" in params.url.query else params.method
        report(verb, str(params.response.status))

    async def failed(
        _session: aiohttp.ClientSession, _context: SimpleNamespace, params: aiohttp.TraceRequestExceptionParams
    ) -> None:
        report("WATCH" if "watch" in params.url.query else params.method, "")

    tracing = aiohttp.TraceConfig()
    tracing.on_request_end.append(ended)
    tracing.on_request_exception.append(failed)
    return tracing
