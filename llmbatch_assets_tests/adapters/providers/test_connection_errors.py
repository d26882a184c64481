"""Connections that fail on the way to a server: the error names the peer that failed and what to do about it."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from llmbatch_assets.adapters.providers.connection_errors import Route, connection_error
from llmbatch_assets.adapters.providers.openai_client import OpenAIClient
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.errors import ProviderError, RunPermanentError, TransientError
from llmbatch_assets_tests.adapters.values import chat_request

KEY = "secret-key-of-the/test"
SERVER = "https://model.invalid/v1"
FORBIDDEN = (
    "the proxy {proxy} does not allow connections to model.invalid (HTTP 403); ask its administrator, or add "
    "model.invalid to no_proxy"
)


@contextmanager
def peer(answer: bytes, heads: list[bytes] | None = None) -> Iterator[str]:
    """The address of a server that reads one head of a request per connection, and sends these bytes back."""

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head and (part := connection.recv(65536)):
                        head += part
                    if heads is not None:
                        heads.append(head)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def failure(caplog: pytest.LogCaptureFixture, base_url: str = SERVER) -> ProviderError:
    """The error of one call, which shows no secret and is logged in the same words."""
    caplog.set_level(logging.DEBUG, logger="llmbatch_assets")

    async def call() -> ProviderError:
        settings = {"model_name": "m-1", "timeout_sec": 10, "silence_client_lv_logs": False}
        client = OpenAIClient(Llm.model_validate(settings), base_url, lambda: KEY)
        try:
            with pytest.raises(ProviderError) as failed:
                await client.complete(chat_request())
            return failed.value
        finally:
            await client.aclose()

    error = asyncio.run(call())
    assert str(error) in caplog.text
    for secret in (KEY, "user", "pa55", "dXNlcj"):
        assert secret not in str(error) + caplog.text.replace("USER", "")
    return error


@pytest.mark.parametrize(
    ("status", "kind", "cause", "text"),
    [
        (
            "407 Proxy Authentication Required",
            RunPermanentError,
            "proxy_refused",
            "the proxy {proxy} rejected its login (HTTP 407); correct https_proxy in the environment",
        ),
        (
            "403 Forbidden",
            RunPermanentError,
            "proxy_refused",
            FORBIDDEN,
        ),
        (
            "502 Bad Gateway",
            TransientError,
            "connection",
            "the proxy {proxy} did not connect to model.invalid (HTTP 502)",
        ),
        ("503 Busy", TransientError, "connection", "the proxy {proxy} did not connect to model.invalid (HTTP 503)"),
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_named(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: str,
    kind: type[ProviderError],
    cause: str,
    text: str,
) -> None:
    echo = f"HTTP/1.1 {status}\r\nX-Echo: {KEY} user:pa55\r\nContent-Length: 0\r\n\r\n"
    with peer(echo.encode()) as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:pa55@{proxy}")
        error = failure(caplog)
    assert (type(error), error.cause, str(error)) == (kind, cause, text.format(proxy=proxy))


def test_a_tunnel_is_asked_for_with_the_login_of_the_proxy_and_without_the_key(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heads = list[bytes]()
    with peer(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", heads) as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:pa55@{proxy}")
        failure(caplog)
    [head] = heads
    assert head.startswith(b"CONNECT model.invalid:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpwYTU1\r\n" in head
    assert KEY.encode() not in head


def test_a_proxy_that_requires_a_login_says_where_to_write_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with peer(b"HTTP/1.1 407 \r\nContent-Length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("all_proxy", proxy)
        error = failure(caplog)
    assert str(error) == (
        f"the proxy {proxy} requires a login (HTTP 407); set all_proxy to http://USER:PASSWORD@{proxy}"
    )


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nX-Key: secret-key-of-the/test\r\n", b"SSH-2.0 pa55\r\n"])
def test_a_proxy_that_breaks_off_is_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    with peer(answer) as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:pa55@{proxy}")
        error = failure(caplog)
    assert (type(error), error.cause) == (TransientError, "connection")
    assert str(error).startswith(f"connection to {SERVER} through the proxy {proxy} failed: ")


def test_a_tunnel_to_something_without_tls_names_both(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with peer(b"HTTP/1.1 200 OK\r\n\r\nno TLS here, whatever is asked\r\n") as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:pa55@{proxy}")
        error = failure(caplog)
    assert f"{SERVER} through the proxy {proxy}" in str(error)


@pytest.mark.parametrize("base_url", [SERVER, "http://model.invalid/v1"])
def test_a_proxy_that_cannot_be_reached_stops_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, base_url: str
) -> None:
    with nobody() as proxy:
        monkeypatch.setenv("all_proxy", f"http://user:pa55@{proxy}")
        error = failure(caplog, base_url)
    assert (type(error), error.cause) == (RunPermanentError, "nothing_listening")
    assert str(error).startswith(f"no connection to the proxy {proxy} (")
    assert str(error).endswith("; correct all_proxy in the environment, or add model.invalid to no_proxy")
    assert "start the server" not in str(error)


def test_a_proxy_with_an_unknown_name_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("https_proxy", "http://user:pa55@proxy.invalid:3128")
    error = failure(caplog)
    assert str(error).startswith("no connection to the proxy proxy.invalid:3128 (")


def test_a_server_that_accepts_no_connection_in_time_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llmbatch_assets.adapters.providers.connection.CONNECT_SEC", 0.2)
    with socket.socket() as listening, contextlib.ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        # The kernel accepts one more than the length of the queue, and ignores the rest.
        for _ in range(3):
            filler = waiting.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        error = failure(caplog, url)
    assert str(error) == (
        f"no connection to {url} (the connection was not accepted in time); start the server or correct llm.base_url"
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "the connection was closed before the answer"),
        (f"HTTP/1.1 200 OK\r\nX-Key: {KEY}\r\n".encode(), "the connection was closed before the answer"),
        (f"{KEY}\r\n\r\n".encode(), "the answer breaks off or is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "the answer breaks off or is not HTTP"),
    ],
)
def test_what_a_server_sent_is_not_quoted(caplog: pytest.LogCaptureFixture, answer: bytes, reason: str) -> None:
    with peer(answer) as address:
        error = failure(caplog, f"http://{address}/v1")
    assert str(error) == f"connection to http://{address}/v1 failed: {reason}"


def test_messages_of_the_system_are_shown_without_the_key_and_escaped() -> None:
    error = connection_error(
        aiohttp.ClientOSError(104, f"reset {KEY} \x1b[31m"), Route(SERVER, None), KEY, 10, was_reached=True
    )
    assert str(error) == f"connection to {SERVER} failed: [Errno 104] reset [key] \\x1b[31m"
