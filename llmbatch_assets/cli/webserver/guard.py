"""Refuse requests to Dagster's webserver that were made by other web pages.

The webserver has no login. While it runs, any web page that the user opens can send requests to it, and a page whose
domain resolves to 127.0.0.1 ("DNS rebinding") can also read the answers. This ASGI middleware checks the headers that
browsers send: ``Host``, ``Origin``, ``Sec-Fetch-Site`` and ``Content-Type``. Programs such as curl pass these checks.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from llmbatch_assets.domain.text import visible

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_READING = ("GET", "HEAD", "OPTIONS")
# Web pages cannot send these to another origin without its consent, unlike text/plain and form data.
_JSON_TYPES = ("application/json", "application/graphql")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_POLICY_VIOLATION = 1008


@dataclass(frozen=True)
class Address:
    """Where the webserver listens; ``prefix`` is the path below which a proxy serves its pages, such as ``/dagster``."""

    host: str
    port: int
    prefix: str = ""

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.prefix}"


@dataclass(frozen=True)
class KnownHosts:
    """The names under which the webserver may be opened.

    ``listening`` is the address it listens on, and ``allowed`` lists further names: host names, or ``*.`` and a domain.
    """

    listening: str
    allowed: Collection[str] = ()
    _machine: str = field(default_factory=socket.gethostname)

    def __contains__(self, name: str) -> bool:
        if _is_localhost(name) or name == self.listening.lower() or self.is_allowed(name):
            return True
        # Names can be made to resolve to any address, addresses cannot.
        return not is_loopback(self.listening) and (_address(name) is not None or name == self._machine.lower())

    def is_allowed(self, name: str) -> bool:
        """Whether the user has named this host."""
        return any(name == known or (known[:2] == "*." and name.endswith(known[1:])) for known in self.allowed)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to a server that listens on ``host``."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def _is_localhost(name: str) -> bool:
    address = _address(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


@dataclass(frozen=True)
class _Request:
    method: str  # empty for a websocket
    path: str
    headers: Collection[tuple[bytes, bytes]]

    def values(self, name: str) -> list[str]:
        return [value.decode("latin-1").strip() for key, value in self.headers if key.decode("latin-1") == name]

    def value(self, name: str) -> str:
        # A repeated header is read as one value that matches nothing.
        return ", ".join(self.values(name))

    @property
    def reads(self) -> bool:
        return self.method in _READING


def _refusal(request: _Request, known: KnownHosts) -> str:
    """Return the reason to refuse a request; empty if it is accepted."""
    return _host_refusal(request, known) or _page_refusal(request, known) or _graphql_refusal(request)


def _host_refusal(request: _Request, known: KnownHosts) -> str:
    name, _ = _split(request.value("host"))
    if name in known:
        return ""
    return f"the host name {name or '(none)'} is not allowed{_advice(name)}"


def _page_refusal(request: _Request, known: KnownHosts) -> str:
    origin = request.value("origin")
    if origin and not _is_own_page(origin, request.value("host"), known):
        _, name, _ = _origin(origin)
        return f"requests from the web page {origin} are not accepted{_advice(name)}"
    follows_link = request.reads and request.value("sec-fetch-mode") == "navigate"
    if request.value("sec-fetch-site") not in ("", "same-origin", "none") and not follows_link:
        return "requests from other web pages are not accepted"
    return ""


def _graphql_refusal(request: _Request) -> str:
    is_graphql = request.path.rstrip("/").endswith("/graphql")
    if not request.method:
        return ""
    if request.reads:
        # With this header, Dagster shows a page that sends queries by POST.
        executes = is_graphql and request.method == "GET" and "text/html" not in request.value("accept")
        return "GraphQL is only accepted by POST, with Content-Type: application/json" if executes else ""
    content_type = request.value("content-type").partition(";")[0].strip().lower()
    if content_type in _JSON_TYPES or (not content_type and not is_graphql):
        return ""
    return (
        f"the content type {content_type or '(none)'} is not accepted; send JSON, with Content-Type: application/json"
    )


def _is_own_page(origin: str, host: str, known: KnownHosts) -> bool:
    default, name, port = _origin(origin)
    own_name, own_port = _split(host)
    # Some proxies replace the Host header, so a name that the user has allowed need not be there, too.
    return known.is_allowed(name) or (bool(default) and (name, port) == (own_name, own_port or default))


def _origin(text: str) -> tuple[int, str, int]:
    """Default port, name and port of an Origin header; zero and empty if it is no address."""
    scheme, separator, host = text.lower().partition("://")
    default = _DEFAULT_PORTS.get(scheme, 0)
    name, port = _split(host) if separator else ("", None)
    return default, name, port or default


def _split(host: str) -> tuple[str, int | None]:
    """Name, without brackets, and port of a Host header. The name is empty if it is no host."""
    try:
        parts = urlsplit(f"//{host}")
        valid = not set(host) & set("/?#@\\, \t")
        return ((parts.hostname or "").removesuffix("."), parts.port) if valid else ("", None)
    except ValueError:
        return "", None


def _advice(name: str) -> str:
    return f"; if you open Dagster under this name, start it with: llmbatch ui --allowed-host {name}" if name else ""


class Guard:
    """ASGI middleware that answers requests from other web pages with 403, and keeps other pages from framing ours."""

    def __init__(self, app: App, known: KnownHosts, report: Callable[[str], None]) -> None:
        self._app = app
        self._known = known
        self._report = report
        frames = ["'self'", *(source for name in known.allowed for source in (name, f"{name}:*"))]
        self._policy = f"frame-ancestors {' '.join(frames)}".encode("latin-1")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif reason := _refusal(_Request(scope.get("method", ""), scope["path"], scope["headers"]), self._known):
            self._report(reason)
            await _refuse(scope, send, visible(f"Refused: {reason}.\n"))
        else:
            await self._app(scope, receive, self._forbidding_frames(send))

    def _forbidding_frames(self, send: Send) -> Send:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", self._policy)
                message = {**message, "headers": [*message.get("headers", ()), policy]}
            await send(message)

        return send_with_policy


async def _refuse(scope: Scope, send: Send, text: str) -> None:
    if scope["type"] == "websocket":
        # Closed before it was accepted: the server answers with 403.
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    body = text.encode()
    headers = {
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": str(len(body)).encode(),
        b"cache-control": b"no-store",
    }
    await send({"type": "http.response.start", "status": 403, "headers": list(headers.items())})
    await send({"type": "http.response.body", "body": body})
