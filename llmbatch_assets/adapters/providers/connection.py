"""The HTTP connection to a server: the SDK's client, the key, and responses of limited size without the key."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import AsyncGenerator
from functools import cache
from urllib.parse import urlsplit

import httpx2
import openai

from llmbatch_assets.adapters.providers.credentials import NO_KEY
from llmbatch_assets.adapters.providers.request_body import is_openai
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.errors import FailureCause, RunPermanentError, StopCause, TransientError

CONNECT_SEC = 10.0
# Timed-out calls are retried with at most this many times llm.timeout_sec.
MAX_TIMEOUT_FACTOR = 4
# Bytes after decompression. No model writes that much in one answer.
MAX_BODY_BYTES = 10_000_000
# Shorter keys are placeholders such as "none", and not secret.
SHORTEST_SECRET = 8
# The environment variable that names the certificates of private servers.
CA_FILE = "SSL_CERT_FILE"
BEARER_HEADER = "authorization"
_THIS_MACHINE = {"127.0.0.1", "localhost", "::1"}


def open_sdk(llm: Llm, base_url: str, key_header: str) -> openai.AsyncOpenAI:
    """Open the SDK's client. It has no key: ``key_headers`` go with each call."""

    async def receive(response: httpx2.Response) -> None:
        await _receive(response, response.request.headers.get(key_header, "").removeprefix("Bearer "))

    # Each call has its own, shorter limit.
    timeout = openai.Timeout(llm.timeout_sec * MAX_TIMEOUT_FACTOR, connect=min(llm.timeout_sec, CONNECT_SEC))
    http = openai.DefaultAioHttpClient(
        timeout=timeout,
        # The key must not reach another host.
        follow_redirects=False,
        # A proxy is for hosts other than this machine.
        trust_env=urlsplit(base_url).hostname not in _THIS_MACHINE,
        verify=_certificates(base_url),
        event_hooks={"response": [receive]},
    )
    sdk = openai.AsyncOpenAI(api_key=NO_KEY, base_url=base_url, max_retries=0, http_client=http, timeout=timeout)
    if not is_openai(base_url):
        # The SDK reads both from the environment and would send them to any server.
        sdk.organization = sdk.project = None
    return sdk


def _certificates(base_url: str) -> ssl.SSLContext | bool:
    """Return the trusted certificates, which ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` can name for any host."""
    if urlsplit(base_url).scheme != "https":
        return True
    try:
        return httpx2.create_ssl_context()
    except OSError as unreadable:
        named = os.environ.get(CA_FILE) or os.environ.get("SSL_CERT_DIR")
        raise RunPermanentError(
            StopCause.BAD_SETTING, f"{CA_FILE} names {named}, which has no certificates in PEM format: {unreadable}"
        ) from None


def key_headers(key: str, key_header: str) -> dict[str, str | openai.Omit]:
    """Return the headers with the key. Raises ``RunPermanentError`` for a key that is not valid in a header."""
    if not (key.isascii() and key.isprintable()):
        raise RunPermanentError(
            StopCause.BAD_KEY,
            "the key contains a line break or another character that is not allowed in a key; copy it again",
        )
    if key_header.lower() == BEARER_HEADER:
        return {"Authorization": f"Bearer {key}"}
    return {"Authorization": openai.Omit(), key_header: key}


async def _receive(response: httpx2.Response, key: str) -> None:
    """Read a response up to the size limit and remove the key from it.

    The SDK itself would read, and decompress, without a limit.
    """
    is_compressed = "content-encoding" in response.headers
    body = bytearray()
    try:
        async with contextlib.aclosing(_chunks(response, is_compressed=is_compressed)) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise TransientError(
                        FailureCause.TOO_LARGE, f"the answer is larger than {MAX_BODY_BYTES // 1_000_000} MB"
                    )
    except httpx2.DecodingError:
        raise TransientError(FailureCause.BROKEN_BODY, "the answer cannot be decompressed") from None
    headers = [(name, _without_key(key, value)) for name, value in response.headers.raw]
    if is_compressed or headers != response.headers.raw:
        response.headers = httpx2.Headers([one for one in headers if one[0].lower() != b"content-encoding"])
    response.stream = httpx2.ByteStream(_without_key(key, bytes(body)))


async def _chunks(response: httpx2.Response, *, is_compressed: bool) -> AsyncGenerator[bytes, None]:
    if is_compressed:
        # A second response, because the SDK must still read this one.
        unread = httpx2.Response(response.status_code, headers=response.headers, stream=response.stream)
        async for chunk in unread.aiter_bytes():
            yield chunk
        return
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    try:
        async for chunk in response.stream:
            yield chunk
    finally:
        await response.stream.aclose()


def _without_key(key: str, content: bytes) -> bytes:
    """Remove the key, which some servers repeat, in plain form or with JSON escapes."""
    # Headers need not be ASCII.
    text = content.decode("latin-1")
    # Searching the whole text with the pattern would take longer than the transfer.
    may_contain_key = "u00" in text or key.replace("\\", "") in text.replace("\\", "")
    if len(key) < SHORTEST_SECRET or not may_contain_key:
        return content
    return _key_pattern(key).sub("[key]", text).encode("latin-1")


@cache
def _key_pattern(key: str) -> re.Pattern[str]:
    characters = (rf"\\{{0,8}}(?:{re.escape(one)}|u00{ord(one):02x}|u00{ord(one):02X})" for one in key)
    return re.compile("".join(characters))
