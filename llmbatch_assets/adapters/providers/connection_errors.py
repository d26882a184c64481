"""Calls without a response: the error that says which peer failed and what to do, without the key or what a peer sent."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from llmbatch_assets.adapters.providers.connection import CA_FILE, without_key
from llmbatch_assets.adapters.providers.proxies import Proxy
from llmbatch_assets.adapters.providers.responses.refusals import quoted
from llmbatch_assets.errors import FailureCause, RunPermanentError, StopCause, TransientError

_LOGIN_REQUIRED, _FORBIDDEN = 407, 403


class Route(NamedTuple):
    """A server, and the proxy on the way to it."""

    base_url: str
    proxy: Proxy | None

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or ""


def connection_error(
    error: Exception, route: Route, key: str, limit: float, *, was_reached: bool
) -> TransientError | RunPermanentError:
    """Return the error of a call that ended in one of aiohttp's errors. Until the server was reached, the user can help."""
    causes = list(_causes(error))
    reason = quoted(without_key(key, _reason(causes)))
    if any(isinstance(one, OSError) and one.errno in (errno.EMFILE, errno.ENFILE) for one in causes):
        return RunPermanentError(
            StopCause.OPEN_FILES,
            f"too many open files ({reason}); lower llm.max_workers, or raise the limit with ulimit -n",
        )
    if route.proxy and isinstance(error, aiohttp.ClientHttpProxyError):
        return _proxy_refusal(error.status, route, route.proxy)
    peer, remedy = _peer(causes, route)
    if _has(causes, ssl.SSLCertVerificationError):
        untrusted = quoted(without_key(key, _untrusted(causes)))
        return RunPermanentError(
            StopCause.NOTHING_LISTENING,
            f"the certificate of {peer} is not trusted ({untrusted}); for a server of your own, set the "
            f"environment variable {CA_FILE} to a PEM file with its certificate or that of its authority (CA)",
        )
    if not was_reached and _has(causes, aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        return RunPermanentError(StopCause.NOTHING_LISTENING, f"no connection to {peer} ({reason}); {remedy}")
    if _has(causes, TimeoutError):
        return TransientError(FailureCause.TIMEOUT, f"no answer within {limit:g} s")
    return TransientError(FailureCause.CONNECTION, f"connection to {peer} failed: {reason}")


def _proxy_refusal(status: int, route: Route, proxy: Proxy) -> TransientError | RunPermanentError:
    if status == _LOGIN_REQUIRED:
        problem, remedy = (
            ("rejected its login", f"correct {proxy.variable} in the environment")
            if proxy.headers
            else ("requires a login", f"set {proxy.variable} to http://USER:PASSWORD@{proxy.address}")
        )
        return RunPermanentError(StopCause.PROXY_REFUSED, f"the proxy {proxy.address} {problem} (HTTP 407); {remedy}")
    if status == _FORBIDDEN:
        return RunPermanentError(
            StopCause.PROXY_REFUSED,
            f"the proxy {proxy.address} does not allow connections to {route.host} (HTTP 403); ask its administrator, or "
            f"add {route.host} to no_proxy",
        )
    return TransientError(
        FailureCause.CONNECTION, f"the proxy {proxy.address} did not connect to {route.host} (HTTP {status})"
    )


def _peer(causes: list[BaseException], route: Route) -> tuple[str, str]:
    """Return the name of the peer that failed, as far as we can tell, and what to do if it cannot be reached."""
    proxy = route.proxy
    if not proxy:
        return route.base_url, "start the server or correct llm.base_url"
    if any(isinstance(one, aiohttp.ClientConnectorError) and one.host == proxy.host for one in causes):
        return (
            f"the proxy {proxy.address}",
            f"correct {proxy.variable} in the environment, or add {route.host} to no_proxy",
        )
    return f"{route.base_url} through the proxy {proxy.address}", f"check the proxy, {proxy.variable} and llm.base_url"


def _reason(causes: list[BaseException]) -> str:
    """Return why a connection failed. Only messages of the system are shown: aiohttp's quote what a peer sent."""
    if _has(causes, aiohttp.ClientPayloadError, aiohttp.ClientResponseError):
        return "the answer breaks off or is not HTTP"
    if _has(causes, aiohttp.ServerDisconnectedError):
        return "the connection was closed before the answer"
    if _has(causes, aiohttp.ConnectionTimeoutError):
        return "the connection was not accepted in time"
    messages = [str(one) for one in causes if isinstance(one, OSError)]
    return next(filter(None, reversed(messages)), type(causes[0]).__name__)


def _untrusted(causes: list[BaseException]) -> str:
    messages = (getattr(one, "verify_message", "") for one in causes)
    return next(filter(None, messages), "it could not be verified")


def _has(causes: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(one, kinds) for one in causes)


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
