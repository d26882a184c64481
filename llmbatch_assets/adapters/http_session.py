"""POST to one address: answers taken in whole and within bounds, and nothing in them that is the key.

aiohttp itself and not a provider's SDK on top of it, which costs several times as much for each call.
"""

from __future__ import annotations

import re
import ssl
from functools import cache
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError

from llmbatch_assets.errors import TransientError

HTTP_OK = 200
# No model writes so much in one answer. Bytes after decompression.
LONGEST_BODY = 10_000_000
# A placeholder such as "none" is no secret.
SHORTEST_KEY = 7
_THIS_MACHINE = {"127.0.0.1", "localhost", "::1"}
_TOLD = ("retry-after", "retry-after-ms", "x-request-id")


class HttpAnswer(NamedTuple):
    """An answer without the key. ``headers`` are those that a client reads, in small letters."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def request_id(self) -> str:
        """The provider's name for the call, where it told one."""
        return self.headers.get("x-request-id", "")


class HttpSession:
    """Connections to one server. Redirects are not followed: the key must reach no other host."""

    def __init__(self, url: str, connect_sec: float, headers: dict[str, str]) -> None:
        self._url = url
        self._proxy = _proxy_for(url)
        self._session = aiohttp.ClientSession(
            # How many calls there are at once is decided elsewhere.
            connector=aiohttp.TCPConnector(limit=0, ssl=_trusted() if url.startswith("https:") else True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_sec),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json", "Accept": "application/json", **headers},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def post(self, body: bytes, key: str) -> HttpAnswer:
        """The answer to a body. Raises ``aiohttp.ClientError``, or ``TransientError`` for one that cannot be taken in."""
        headers = {"Authorization": f"Bearer {key}"}
        async with self._session.post(
            self._url, data=body, headers=headers, proxy=self._proxy, allow_redirects=False
        ) as response:
            content = await _whole(response)
            told = {name: _without(key, response.headers[name]) for name in _TOLD if name in response.headers}
            return HttpAnswer(response.status, told, _without(key, content.decode("latin-1")).encode("latin-1"))


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    try:
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > LONGEST_BODY:
                response.close()
                raise TransientError("too_large", f"the answer is larger than {LONGEST_BODY // 1_000_000} MB")
    except aiohttp.ClientPayloadError as broken:
        if isinstance(broken.__cause__ or broken.__context__, ContentEncodingError):
            raise TransientError("broken_body", "the answer cannot be decompressed") from None
        raise
    return bytes(body)


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names. It is for what lies beyond this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return None if host in _THIS_MACHINE or proxy_bypass(host) else getproxies().get(parts.scheme)


def _trusted() -> ssl.SSLContext:
    import httpx2  # its certificates are there where the system has none; a server on this machine needs neither

    return httpx2.create_ssl_context()


def _without(key: str, told: str) -> str:
    """What a server said without the key, which some repeat, be it as it is or escaped as in JSON."""
    return _pattern(key).sub("[key]", told) if len(key) > SHORTEST_KEY else told


@cache
def _pattern(key: str) -> re.Pattern[str]:
    signs = (rf"\\{{0,8}}(?:{re.escape(sign)}|u00{ord(sign):02x}|u00{ord(sign):02X})" for sign in key)
    return re.compile("".join(signs))
