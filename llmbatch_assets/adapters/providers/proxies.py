"""The HTTP proxy that the environment names for a server. No error shows its user or password."""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit
from urllib.request import getproxies, proxy_bypass

from llmbatch_assets.errors import RunPermanentError, StopCause

_THIS_MACHINE = {"127.0.0.1", "localhost", "::1"}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_UNSUPPORTED = {"socks", "socks4", "socks4a", "socks5", "socks5h"}


@dataclass(frozen=True)
class Proxy:
    """A proxy, the environment variable that names it, and the header with its user and password, if it has them.

    The URL has no user and password, so that the HTTP client cannot quote them.
    """

    url: str
    variable: str
    headers: dict[str, str] = field(repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.url).netloc


def proxy_for(base_url: str) -> Proxy | None:
    """Return the proxy that the environment names for this server; None for this machine.

    Raises ``RunPermanentError`` for a proxy that cannot be used.
    """
    url, proxies = urlsplit(base_url), getproxies()
    host, excluded = url.hostname or "", proxies.get("no", "")
    if host in _THIS_MACHINE or proxy_bypass(url.netloc) or _is_excluded(host, excluded):
        return None
    name = url.scheme if proxies.get(url.scheme) else "all"
    address = proxies.get(name, "").strip()
    if not address:
        return None
    if not (scheme := _SCHEME.match(address)):
        address = f"http://{address}"
    elif scheme[1].lower() in _UNSUPPORTED:
        raise RunPermanentError(
            StopCause.BAD_SETTING,
            f"the environment names a {scheme[1]} proxy, which is not supported; set {url.scheme}_proxy to an HTTP proxy, or "
            f"add {host} to no_proxy",
        )
    parts = _parts(address, f"{name}_proxy")
    credentials, _, netloc = parts.netloc.rpartition("@")
    return Proxy(f"{parts.scheme}://{netloc}", f"{name}_proxy", _login(credentials))


def _is_excluded(host: str, excluded: str) -> bool:
    """Return whether a ``no_proxy`` list has a network of the host, such as 10.0.0.0/8, or everything: ``*``.

    Python's own ``proxy_bypass`` knows only names.
    """
    for name in map(str.strip, excluded.split(",")):
        with suppress(ValueError):
            if name == "*" or ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False):
                return True
    return False


def _parts(address: str, variable: str) -> SplitResult:
    """Split the address of a proxy. A password with a slash, for example, ends the part with the host too early."""
    with suppress(ValueError):
        parts = urlsplit(address)
        has_host = parts.hostname and parts.port != 0 and not re.search(r"[\s\\%]", parts.netloc.rpartition("@")[2])
        if parts.scheme in ("http", "https") and has_host and "@" not in parts.path + parts.query + parts.fragment:
            return parts
    raise RunPermanentError(
        StopCause.BAD_SETTING,
        f"{variable} in the environment is not the address of an HTTP proxy; write http://HOST:PORT or "
        "http://USER:PASSWORD@HOST:PORT, with %2F, %3F, %23 and %40 for the characters / ? # @ in user and password",
    )


def _login(credentials: str) -> dict[str, str]:
    if not credentials:
        return {}
    user, _, password = credentials.partition(":")
    login = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return {"Proxy-Authorization": f"Basic {b64encode(login).decode()}"}
