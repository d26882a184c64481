"""Proxies of the environment: calls go through them, and no mistake in their address shows a user or password."""

import asyncio
from base64 import b64decode
from collections.abc import Iterator

import pytest

from llmbatch_assets.adapters.providers.connection import Connection
from llmbatch_assets.adapters.providers.proxies import proxy_for
from llmbatch_assets.adapters.providers.responses.http_response import HttpResponse
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.errors import RunPermanentError
from llmbatch_assets_tests.chat_server import ChatServer

BODY = b'{"model": "m-1", "messages": [{"role": "user", "content": "row 1"}]}'


@pytest.fixture
def proxy() -> Iterator[ChatServer]:
    """A second server. A proxy is asked for the whole address, whose path a server looks at."""
    with ChatServer() as server:
        yield server


def post(base_url: str) -> HttpResponse:
    async def call() -> HttpResponse:
        opened = Connection(Llm(timeout_sec=5), base_url)
        try:
            return await opened.post(BODY, "secret-key")
        finally:
            await opened.aclose()

    return asyncio.run(call())


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_of_the_environment_gets_calls_to_other_machines(
    proxy: ChatServer, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    if name.isupper():
        # The standard library ignores it where a web server may have set it from a request's header.
        monkeypatch.delenv("REQUEST_METHOD", raising=False)
    monkeypatch.setenv(name, f"{scheme}user:word@127.0.0.1:{proxy.port}")
    assert post("http://model.invalid/v1").status == 200
    [call] = proxy.calls
    assert call.headers["Host"] == "model.invalid"
    assert call.headers["Proxy-Authorization"].startswith("Basic ")


@pytest.mark.parametrize("listed", ["model.invalid", ".invalid", "*"])
def test_a_host_of_no_proxy_is_called_directly(proxy: ChatServer, monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", f"other.invalid, {listed}")
    with pytest.raises(OSError, match=r"model\.invalid"):
        post("http://model.invalid/v1")
    assert proxy.count() == 0


def test_a_network_of_no_proxy_is_called_directly(
    server: ChatServer, proxy: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second address of this machine, which is not an exception of ours.
    address = server.base_url.replace("127.0.0.1", "127.0.0.2")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    assert post(address).status == 200
    monkeypatch.setenv("no_proxy", "10.0.0.0/8, 127.0.0.0/24")
    with pytest.raises(OSError, match="127"):
        post(address)
    assert (proxy.count(), server.count()) == (1, 0)


def test_this_machine_is_called_directly(
    server: ChatServer, proxy: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{proxy.port}")
    assert post(server.base_url).status == 200
    assert (server.count(), proxy.count()) == (1, 0)


def test_a_proxy_of_another_kind_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://user:word@127.0.0.1:1080")
    with pytest.raises(RunPermanentError) as refused:
        post("https://model.invalid/v1")
    assert str(refused.value) == (
        "the environment names a socks5 proxy, which is not supported; set https_proxy to an HTTP proxy, or add "
        "model.invalid to no_proxy"
    )


@pytest.mark.parametrize(
    ("login", "sent"),
    [
        ("user:pass", "user:pass"),
        ("user", "user:"),
        ("us@er:p:a", "us@er:p:a"),
        ("user:p%2Fa%40", "user:p/a@"),
        ("dom%3Aain:%E2%82%AC", "dom:ain:€"),
    ],
)
def test_user_and_password_are_sent_to_the_proxy_and_not_in_its_url(
    proxy: ChatServer, monkeypatch: pytest.MonkeyPatch, login: str, sent: str
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{login}@127.0.0.1:{proxy.port}")
    assert post("http://model.invalid/v1").status == 200
    scheme, _, encoded = proxy.calls[0].headers["Proxy-Authorization"].partition(" ")
    assert (scheme, b64decode(encoded).decode()) == ("Basic", sent)
    used = proxy_for("http://model.invalid/v1")
    assert used is not None
    assert (used.url, used.address) == (f"http://127.0.0.1:{proxy.port}", f"127.0.0.1:{proxy.port}")
    assert encoded not in repr(used)


@pytest.mark.parametrize("name", ["https_proxy", "all_proxy"])
@pytest.mark.parametrize(
    "address",
    [
        # Characters that have to be escaped.
        "http://user:pa55/word@proxy.invalid:80",
        "http://user:80/pa55@proxy.invalid:80",
        "http://user:80?pa55@proxy.invalid:80",
        "http://user:pa55#word@proxy.invalid:80",
        "user:pa55/word@proxy.invalid:80",
        "http://user:pa55://word@proxy.invalid:80",
        "user:pa55://word@proxy.invalid:80",
        "pa55://word@proxy.invalid:80",
        # No host or port.
        "http://user:pa55@",
        "http://user:pa55@:80",
        "http://user:pa55@pro xy:80",
        "http://user:pa55@pro%20xy:80",
        "http://user:pa55@pro\\xy:80",
        "http://user:pa55@[zz]:80",
        "http://user:pa55@proxy.invalid:80:80",
        "http://user:pa55@proxy.invalid:0",
        "http://user:pa55@proxy.invalid:99999",
        "ftp://user:pa55@proxy.invalid:21",
    ],
)
def test_an_address_that_is_no_proxy_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    monkeypatch.setenv(name, address)
    with pytest.raises(RunPermanentError) as refused:
        proxy_for("https://model.invalid/v1")
    assert refused.value.cause == "bad_setting"
    assert str(refused.value) == (
        f"{name} in the environment is not the address of an HTTP proxy; write http://HOST:PORT or "
        "http://USER:PASSWORD@HOST:PORT, with %2F, %3F, %23 and %40 for the characters / ? # @ in user and password"
    )


@pytest.mark.parametrize("address", ["http://proxy.invalid:3128/", " proxy.invalid:3128 ", "HTTP://proxy.invalid:3128"])
def test_other_spellings_of_an_address_are_accepted(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("https_proxy", address)
    used = proxy_for("https://model.invalid/v1")
    assert used is not None
    assert (used.url, used.variable, used.headers) == ("http://proxy.invalid:3128", "https_proxy", {})
