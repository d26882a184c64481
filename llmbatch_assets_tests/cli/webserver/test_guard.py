"""The guard in front of Dagster's webserver: what other web pages can send is refused, all that works is passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from llmbatch_assets.cli.webserver.guard import Address, Guard, KnownHosts, Message, Receive, Scope, Send

LOCAL = KnownHosts("127.0.0.1")
OPEN = KnownHosts("192.0.2.7", ["lab.example.org", "*.dev.example.org"], "workstation")
JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    """The status of an HTTP request, or 101 or 403 for a websocket, with the body and the reasons reported."""

    status: int
    body: str
    reports: list[str]
    headers: list[tuple[bytes, bytes]]


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts everything, as Dagster's webserver does."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-page", b"1")]})
        await send({"type": "http.response.body", "body": b"done"})


def answer_to(
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    known: KnownHosts = LOCAL,
    host: str = "localhost:3000",
) -> Answer:
    """What a browser gets that asks for ``path`` with these headers; ``WS`` opens a websocket."""
    sent: list[Message] = []
    reports: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("the guard reads no body")

    raw = {"host": host, **(headers or {})}
    scope = {
        "type": "websocket" if method == "WS" else "http",
        "path": path,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in raw.items() if value],
        **({} if method == "WS" else {"method": method}),
    }
    asyncio.run(Guard(page, known, reports.append)(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent).decode()
    first = sent[0]
    status = {"websocket.accept": 101, "websocket.close": 403}.get(first["type"], first.get("status"))
    return Answer(int(status or 0), body, reports, list(first.get("headers", ())))


def test_a_mutation_by_get_is_refused_with_a_sentence() -> None:
    answer = answer_to("GET", "/graphql", {"accept": "*/*"})
    assert answer.status == 403
    assert answer.body == "Refused: GraphQL is only accepted by POST, with Content-Type: application/json.\n"
    assert answer.reports == [answer.body.removeprefix("Refused: ").removesuffix(".\n")]


@pytest.mark.parametrize(
    "content_type",
    [
        # Web pages may send these anywhere. Dagster looks for "application/json" anywhere in the header.
        "text/plain",
        "text/plain; charset=application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=application/json",
        # Dagster reads the query from the address.
        "",
    ],
)
def test_a_post_that_needs_no_consent_of_ours_is_refused(content_type: str) -> None:
    answer = answer_to("POST", "/graphql", {"content-type": content_type})
    assert answer.status == 403
    assert "send JSON" in answer.body


@pytest.mark.parametrize(
    ("known", "host"),
    [
        (LOCAL, "evil.example:3000"),
        (LOCAL, "127.0.0.1.evil.example"),
        (LOCAL, "localhost.evil.example:3000"),
        (LOCAL, "evil.example#localhost"),
        (LOCAL, "evil@localhost"),
        (LOCAL, "localhost, evil.example"),
        (LOCAL, "[::1"),
        (LOCAL, "localhost:port"),
        (LOCAL, ""),
        # Reaches this machine from web pages of any origin in some browsers.
        (LOCAL, "0.0.0.0:3000"),
        (LOCAL, "192.168.1.5:3000"),
        (OPEN, "evil.example:3000"),
        (OPEN, "evil-lab.example.org"),
        (OPEN, "dev.example.org"),
    ],
)
def test_a_foreign_host_is_refused(known: KnownHosts, host: str) -> None:
    assert answer_to("GET", "/", known=known, host=host).status == 403
    assert answer_to("WS", "/graphql", known=known, host=host).status == 403


def test_a_foreign_host_is_named_with_the_option_that_allows_it() -> None:
    answer = answer_to("GET", "/", host="dagster.example.com:3000")
    assert answer.body == (
        "Refused: the host name dagster.example.com is not allowed; if you open Dagster under this name, start it with: "
        "llmbatch ui --allowed-host dagster.example.com.\n"
    )


@pytest.mark.parametrize(
    ("known", "host"),
    [
        (LOCAL, "127.0.0.1:3000"),
        (LOCAL, "127.0.0.2"),
        (LOCAL, "[::1]:3000"),
        # The other end of an SSH tunnel.
        (LOCAL, "LocalHost:8080"),
        (LOCAL, "localhost.:3000"),
        (LOCAL, "project.localhost:3000"),
        (KnownHosts("dagster.internal"), "Dagster.internal:3000"),
        (OPEN, "192.168.1.5:3000"),
        (OPEN, "[fe80::1]:3000"),
        (OPEN, "workstation:3000"),
        (OPEN, "lab.example.org"),
        (OPEN, "a.b.dev.example.org:8443"),
        (OPEN, "localhost"),
    ],
)
def test_the_hosts_that_a_user_opens_are_accepted(known: KnownHosts, host: str) -> None:
    assert answer_to("GET", "/", known=known, host=host).status == 200
    origin = {
        "origin": f"http://{host.removesuffix('.:3000')}" if host != "localhost.:3000" else "http://localhost.:3000"
    }
    assert answer_to("POST", "/graphql", JSON | origin, known=known, host=host).status == 200
    assert answer_to("WS", "/graphql", origin, known=known, host=host).status == 101


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        # Another server on this machine.
        "http://localhost:8888",
        "http://127.0.0.1:3000",
        "http://localhost",
        "null",
        "file://",
        "http://localhost:3000, http://evil.example",
        "http://[",
    ],
)
def test_what_another_page_sends_is_refused(origin: str) -> None:
    assert answer_to("POST", "/graphql", JSON | {"origin": origin}).status == 403
    assert answer_to("POST", "/report_asset_materialization/a", {"origin": origin}).status == 403
    assert answer_to("WS", "/graphql", {"origin": origin}).status == 403


def test_the_origin_of_an_allowed_host_is_accepted_although_a_proxy_replaced_the_host_header() -> None:
    known = KnownHosts("127.0.0.1", ["hub.example.org"])
    assert answer_to("POST", "/graphql", JSON | {"origin": "https://hub.example.org"}, known=known).status == 200
    assert answer_to("WS", "/graphql", {"origin": "https://hub.example.org:8443"}, known=known).status == 101
    assert answer_to("POST", "/graphql", JSON | {"origin": "https://org"}, known=known).status == 403


def test_default_ports_may_be_written_or_left_out() -> None:
    for origin, host in (("https://localhost", "localhost:443"), ("http://localhost:80", "localhost")):
        assert answer_to("POST", "/graphql", JSON | {"origin": origin}, host=host).status == 200
    assert answer_to("POST", "/graphql", JSON | {"origin": "https://localhost"}, host="localhost:80").status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_only_links_of_other_pages_are_followed(site: str) -> None:
    fetched = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    assert answer_to("GET", "/logs/x/y.out", fetched).status == 403
    assert answer_to("POST", "/graphql", JSON | fetched).status == 403
    # A form that is sent to another site navigates, too.
    assert answer_to("POST", "/graphql", JSON | fetched | {"sec-fetch-mode": "navigate"}).status == 403
    assert answer_to("GET", "/runs/1", fetched | {"sec-fetch-mode": "navigate"}).status == 200


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}),
        (
            "GET",
            "/main.js",
            {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "origin": "http://localhost:3000"},
        ),
        # Dagster's page for queries.
        ("GET", "/graphql", {"accept": "text/html,application/xhtml+xml"}),
        ("HEAD", "/graphql", {}),
        ("POST", "/graphql", JSON | {"origin": "http://localhost:3000", "sec-fetch-site": "same-origin"}),
        ("POST", "/graphql", {"content-type": "application/json; charset=utf-8"}),
        ("POST", "/graphql", {"content-type": "application/graphql"}),
        # Programs, which send no Origin.
        ("POST", "/graphql", JSON),
        ("POST", "/report_asset_materialization/a", {}),
        ("WS", "/graphql", {}),
    ],
)
def test_what_the_pages_and_programs_send_is_passed_on(method: str, path: str, headers: dict[str, str]) -> None:
    answer = answer_to(method, path, headers)
    assert answer.status == (101 if method == "WS" else 200)
    assert not answer.reports


def test_other_pages_cannot_frame_the_pages() -> None:
    headers = answer_to("GET", "/", known=OPEN).headers
    policy = "frame-ancestors 'self' lab.example.org lab.example.org:* *.dev.example.org *.dev.example.org:*"
    assert headers == [(b"x-page", b"1"), (b"content-security-policy", policy.encode())]


def test_what_a_page_claims_to_be_is_shown_without_its_terminal_controls() -> None:
    assert "\x1b" not in answer_to("GET", "/", {"origin": "http://\x1b[2J"}).body


def test_the_start_of_the_server_is_passed_on() -> None:
    passed_on: list[Scope] = []

    async def starting() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            passed_on.append(scope)

        async def nothing(*_: object) -> None:
            return None

        await Guard(app, LOCAL, print)({"type": "lifespan"}, nothing, nothing)  # type: ignore[arg-type]

    asyncio.run(starting())
    assert passed_on == [{"type": "lifespan"}]


def test_an_address_of_ipv6_can_be_opened() -> None:
    assert Address("::1", 3000).url == "http://[::1]:3000"
    assert Address("127.0.0.1", 80, "/dagster").url == "http://127.0.0.1:80/dagster"
