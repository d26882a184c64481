"""The HTTP connections to a server: the key, proxies, certificates, and responses of limited size without the key."""

from __future__ import annotations

import os
import re
import ssl
import sys
from functools import cache
from importlib.metadata import version
from urllib.parse import urlsplit

import aiohttp
import truststore
from aiohttp.http_exceptions import ContentEncodingError

from llmbatch_assets.adapters.providers.proxies import Proxy, proxy_for
from llmbatch_assets.adapters.providers.request_body import is_openai
from llmbatch_assets.adapters.providers.responses.http_response import HttpResponse
from llmbatch_assets.adapters.providers.responses.refusals import READ_HEADERS
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.domain.configuration.server_address import chat_url
from llmbatch_assets.errors import FailureCause, RunPermanentError, StopCause, TransientError

CONNECT_SEC = 10.0
# Bytes after decompression. No model writes that much in one answer.
MAX_BODY_BYTES = 10_000_000
# Shorter keys are placeholders such as "none", and not secret.
SHORTEST_SECRET = 8
# The environment variable that names the certificates of private servers.
CA_FILE = "SSL_CERT_FILE"
BEARER_HEADER = "authorization"
# Sent to OpenAI only, from the environment.
_OPENAI_HEADERS = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}


class Connection:
    """Posts chat requests to one server, over as many connections as there are calls in flight."""

    def __init__(self, llm: Llm, base_url: str) -> None:
        self.url = chat_url(base_url)
        self._key_header = llm.key_header
        self.proxy = proxy_for(base_url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=_certificates(base_url)),
            headers=_constant_headers(base_url, self.proxy),
            # Each call has its own limit.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(llm.timeout_sec, CONNECT_SEC)),
        )

    async def aclose(self) -> None:
        await self._session.close()

    async def post(self, body: bytes, key: str) -> HttpResponse:
        """Send a request and read its response. Raises aiohttp's errors, and a ``ProviderError`` for a bad key or body."""
        async with self._session.post(
            self.url,
            data=body,
            headers=key_headers(key, self._key_header),
            proxy=self.proxy.url if self.proxy else None,
            # Only sent to open a tunnel.
            proxy_headers=self.proxy.headers if self.proxy else None,
            # The key must not reach another host.
            allow_redirects=False,
        ) as response:
            headers = {name: response.headers[name] for name in READ_HEADERS if name in response.headers}
            content = await _read(response)
        return HttpResponse(
            response.status,
            {name: without_key(key, value) for name, value in headers.items()},
            # Any bytes are valid Latin-1.
            without_key(key, content.decode("latin-1")).encode("latin-1"),
        )


def _constant_headers(base_url: str, proxy: Proxy | None) -> dict[str, str]:
    """Return the headers that all requests have."""
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "User-Agent": f"llmbatch-assets/{version('llmbatch-assets')}",
    }
    if is_openai(base_url):
        headers |= {name: value for name, variable in _OPENAI_HEADERS.items() if (value := os.environ.get(variable))}
    if proxy and urlsplit(base_url).scheme == "http":
        # There is no tunnel: the proxy reads the request itself.
        headers |= proxy.headers
    return headers


def key_headers(key: str, key_header: str) -> dict[str, str]:
    """Return the header with the key. Raises ``RunPermanentError`` for a key that is not valid in a header."""
    if not (key.isascii() and key.isprintable()):
        raise RunPermanentError(
            StopCause.BAD_KEY,
            "the key contains a line break or another character that is not allowed in a key; copy it again",
        )
    return {key_header: f"Bearer {key}" if key_header.lower() == BEARER_HEADER else key}


def _certificates(base_url: str) -> ssl.SSLContext | bool:
    """Return the trusted certificates, which ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` can name for any host."""
    if urlsplit(base_url).scheme != "https":
        return True
    file, folder = os.environ.get(CA_FILE) or None, os.environ.get("SSL_CERT_DIR") or None
    try:
        if file or folder:
            return ssl.create_default_context(cafile=file, capath=folder)
    except OSError as unreadable:
        raise RunPermanentError(
            StopCause.BAD_SETTING,
            f"{CA_FILE} names {file or folder}, which has no certificates in PEM format: {unreadable}",
        ) from None
    defaults = ssl.get_default_verify_paths()
    if sys.platform in ("win32", "darwin") or not (defaults.cafile or defaults.capath):
        # Python does not know where this system keeps its certificates.
        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return ssl.create_default_context()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read and decompress a body up to the size limit. aiohttp itself would read it without a limit."""
    body = bytearray()
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise TransientError(
                    FailureCause.TOO_LARGE, f"the answer is larger than {MAX_BODY_BYTES // 1_000_000} MB"
                )
    except aiohttp.ClientPayloadError as broken:
        if isinstance(broken.__cause__, ContentEncodingError):
            raise TransientError(FailureCause.BROKEN_BODY, "the answer cannot be decompressed") from None
        raise
    return bytes(body)


def without_key(key: str, text: str) -> str:
    """Remove the key, which some servers repeat, in plain form or with JSON escapes."""
    # Searching the whole text with the pattern would take longer than the transfer.
    may_contain_key = "u00" in text or key.replace("\\", "") in text.replace("\\", "")
    if len(key) < SHORTEST_SECRET or not may_contain_key:
        return text
    return _key_pattern(key).sub("[key]", text)


@cache
def _key_pattern(key: str) -> re.Pattern[str]:
    characters = (rf"\\{{0,8}}(?:{re.escape(one)}|u00{ord(one):02x}|u00{ord(one):02X})" for one in key)
    return re.compile("".join(characters))
