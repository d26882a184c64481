"""The way to a server: certificates and the headers that are sent."""

import asyncio
import contextlib
import ssl
import sys
from pathlib import Path

import pytest
import truststore

from llmbatch_assets.adapters.providers import request_body
from llmbatch_assets.adapters.providers.connection import Connection, _certificates
from llmbatch_assets.adapters.providers.responses.http_response import HttpResponse
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.errors import RunPermanentError, TransientError
from llmbatch_assets_tests.chat_server import ChatServer, raw_body, wire

KEY = "secret-key-of-the/test"
BODY = b'{"model": "m-1", "messages": [{"role": "user", "content": "row 1"}]}'


def post(base_url: str, **settings: object) -> HttpResponse:
    async def call() -> HttpResponse:
        opened = Connection(Llm.model_validate({"timeout_sec": 5, **settings}), base_url)
        try:
            return await opened.post(BODY, KEY)
        finally:
            await opened.aclose()

    return asyncio.run(call())


@pytest.mark.parametrize("header", ["", "x-api-key"])
def test_the_key_is_in_one_header(server: ChatServer, header: str) -> None:
    post(server.base_url, api_key_header=header)
    sent = server.calls[0].headers
    assert [name for name, value in sent.items() if KEY in value] == [header or "Authorization"]
    assert sent["User-Agent"].startswith("llmbatch-assets/")
    assert sent["Content-Type"] == "application/json"


def test_openai_is_told_the_organisation_and_the_project(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-1")
    monkeypatch.setattr(request_body, "OPENAI_BASE_URL", server.base_url)
    post(server.base_url)
    sent = server.calls[0].headers
    assert (sent["OpenAI-Organization"], sent["OpenAI-Project"]) == ("org-1", "project-1")


def test_a_reason_phrase_in_any_encoding_is_read(server: ChatServer) -> None:
    server.script("row 1", wire(b"HTTP/1.1 503 Nicht verf\xfcgbar\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"))
    assert post(server.base_url) == (503, {"retry-after": "7"}, b"")


def test_a_connection_is_used_again() -> None:
    opened = 0

    async def answer_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(BODY):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async def calls() -> None:
        async with await asyncio.start_server(answer_each, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            connection = Connection(Llm(), f"http://127.0.0.1:{port}/v1")
            assert [(await connection.post(BODY, KEY)).body for _ in range(3)] == [b"{}"] * 3
            await connection.aclose()

    asyncio.run(calls())
    assert opened == 1


def test_any_number_of_calls_is_in_flight_at_once(server: ChatServer) -> None:
    server.delay = 1.0

    async def calls() -> None:
        opened = Connection(Llm(), server.base_url)
        await asyncio.gather(*(opened.post(BODY, KEY) for _ in range(150)))
        await opened.aclose()

    asyncio.run(calls())
    assert server.max_in_flight == 150


def test_a_body_in_an_unknown_encoding_is_no_answer(server: ChatServer) -> None:
    server.script("row 1", raw_body(b"{}", headers={"Content-Encoding": "gzip"}))
    with pytest.raises(TransientError, match="cannot be decompressed"):
        post(server.base_url)


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_certificates_come_from_the_system_or_from_the_environment(
    platform: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    trusted = _certificates("https://model.invalid/v1")
    assert isinstance(trusted, truststore.SSLContext if platform != "linux" else ssl.SSLContext)
    assert _certificates("http://model.invalid/v1") is True
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(RunPermanentError, match=r"SSL_CERT_FILE names .*none\.pem, which has no certificates"):
        _certificates("https://model.invalid/v1")
