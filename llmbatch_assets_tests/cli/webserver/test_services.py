"""Dagster as ``llmbatch ui`` runs it, behind its guard."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import websockets

from llmbatch_assets_tests.dagster_api import DagsterApi, RunningUi, running_ui, running_webserver
from llmbatch_assets_tests.project import make_project

RELOAD = "mutation {reloadWorkspace {__typename}}"
STATES = "subscription {locationStateChangeEvents {event {eventType}}}"
PROTOCOL = [websockets.Subprotocol("graphql-ws")]
JSON = {"Content-Type": "application/json"}


def status(url: str, body: object = None, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """The status and the text of an answer."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, dict(headers or {})), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


async def live_updates(ui: RunningUi, origin: str | None) -> str:
    """Opens the websocket of Dagster's pages; gives the type of the first answer."""
    address = ui.address.replace("http", "ws") + "/graphql"
    async with websockets.connect(address, origin=origin, subprotocols=PROTOCOL) as socket:  # type: ignore[arg-type]
        await socket.send(json.dumps({"type": "connection_init"}))
        await socket.send(json.dumps({"type": "start", "id": "1", "payload": {"query": STATES}}))
        return str(json.loads(await socket.recv())["type"])


@pytest.mark.slow
def test_the_pages_work_and_what_another_page_sends_is_refused(tmp_path: Path) -> None:
    with running_ui(make_project(tmp_path / "project")) as ui:
        # Own pages.
        assert status(ui.address)[0] == 200
        own = JSON | {"Origin": ui.address, "Sec-Fetch-Site": "same-origin"}
        code, text = status(f"{ui.address}/graphql", {"query": RELOAD}, own)
        assert (code, json.loads(text)) == (200, {"data": {"reloadWorkspace": {"__typename": "Workspace"}}})
        assert DagsterApi(ui.address.replace("127.0.0.1", "localhost")).runs() is not None
        assert asyncio.run(live_updates(ui, ui.address)) == "connection_ack"
        # Others.
        code, text = status(f"{ui.address}/graphql?query={quote(RELOAD)}")
        assert code == 403
        assert "only accepted by POST" in text
        for headers in (
            JSON | {"Origin": "http://evil.example"},
            {"Content-Type": "text/plain"},
            JSON | {"Host": "evil.example"},
        ):
            assert status(f"{ui.address}/graphql", {"query": RELOAD}, headers)[0] == 403
        with pytest.raises(websockets.InvalidStatus, match="403"):
            asyncio.run(live_updates(ui, "http://evil.example"))
        ui.process.send_signal(signal.SIGINT)
        assert ui.process.wait(60) == 0
    log = (tmp_path / "ui.log").read_text()
    assert "llmbatch ui --allowed-host evil.example" in log
    assert "Other machines" not in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_further_hosts_and_a_prefix_are_served_with_a_warning_until_the_daemon_ends(tmp_path: Path) -> None:
    options = ("--host", "0.0.0.0", "--allowed-host", "https://Lab.example.org/x", "--path-prefix", "dagster/")  # noqa: S104
    with running_webserver(make_project(tmp_path / "project"), "llmbatch_assets.cli", "ui", *options) as ui:
        assert status(f"{ui.address}/dagster/server_info", headers={"Host": "lab.example.org"})[0] == 200
        assert status(f"{ui.address}/dagster/server_info", headers={"Host": "evil.example"})[0] == 403
        assert status(f"{ui.address}/dagster/graphql?query={quote(RELOAD)}")[0] == 403
        (daemon,) = (one for one in psutil.Process(ui.process.pid).children() if "dagster._daemon" in one.cmdline())
        daemon.kill()
        assert ui.process.wait(60) == 1
    log = (tmp_path / "ui.log").read_text()
    assert "Other machines can reach 0.0.0.0, and Dagster has no login" in log
    assert "Dagster's daemon exited unexpectedly (exit code -9)" in log
