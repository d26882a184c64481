"""Run Dagster's webserver in this process, and its daemon and the project's code server as children.

``dagster dev`` starts the same three, but has no hook for a guard in front of the webserver.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import dagster as dg
import uvicorn
from dagster._cli.proxy_server_manager import ProxyServerManager
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget, WorkspaceFileTarget
from dagster._utils.log import configure_loggers
from dagster_shared.ipc import get_ipc_shutdown_pipe, open_ipc_subprocess, send_ipc_shutdown_message
from dagster_webserver import cli as webserver_defaults
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__

from llmbatch_assets.cli.webserver.guard import Address, Guard, KnownHosts
from llmbatch_assets.errors import LlmBatchError

LOG_LEVEL = "warning"
# The pages poll as often as those of `dagster dev`.
_POLL_MILLISECONDS = 2000
# Open pages keep their connections; do not wait for them.
_CLOSING_SEC = 3
_DAEMON_ENDING_SEC = 60


def serve(project: Path, address: Address, known: KnownHosts, report: Callable[[str], None]) -> None:
    """Serve the project's pages until SIGINT or SIGTERM.

    Raises ``LlmBatchError`` if the daemon or the webserver ends by itself.
    """
    # Dagster then prints errors of the definitions without its own frames.
    os.environ["DAGSTER_IS_DEV_CLI"] = "1"
    configure_loggers(log_level=LOG_LEVEL.upper())
    with ExitStack() as stack:
        instance = stack.enter_context(dg.DagsterInstance.get())
        workspace = stack.enter_context(_code_server(instance, project))
        daemon = stack.enter_context(_daemon(workspace))
        instance.optimize_for_webserver(
            webserver_defaults.DEFAULT_DB_STATEMENT_TIMEOUT,
            webserver_defaults.DEFAULT_POOL_RECYCLE,
            webserver_defaults.DEFAULT_POOL_MAX_OVERFLOW,
        )
        target = WorkspaceFileTarget(paths=[str(workspace)])
        context = stack.enter_context(WorkspaceProcessContext(instance, target, version=__version__))
        app = create_app_from_workspace_process_context(context, address.prefix, _POLL_MILLISECONDS)
        server = uvicorn.Server(
            uvicorn.Config(
                Guard(app, known, report),
                host=address.host,
                port=address.port,
                log_level=LOG_LEVEL,
                timeout_graceful_shutdown=_CLOSING_SEC,
            )
        )
        threading.Thread(target=_end_with, args=(daemon, server), daemon=True).start()
        # It raises the signals it has received again, at its end.
        server.run()
        raise LlmBatchError(
            f"Dagster's daemon exited unexpectedly (exit code {daemon.poll()}); start llmbatch ui again"
        )


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """End the block on SIGINT or SIGTERM.

    Processes that a shell script starts in the background ignore SIGINT, and so do their children, unless it is restored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        yield


@contextmanager
def _code_server(instance: dg.DagsterInstance, project: Path) -> Iterator[Path]:
    """Start the server of the project's definitions. Yields the path of a workspace file that names it."""
    target = ModuleTarget("llmbatch_assets.definitions", None, str(project), None)
    with (
        tempfile.TemporaryDirectory(prefix="llmbatch-") as folder,
        ProxyServerManager(instance, target, code_server_log_level=LOG_LEVEL) as servers,
    ):
        workspace = Path(folder) / "workspace.yaml"
        workspace.write_text(json.dumps({"load_from": servers.get_code_server_specs()}), encoding="utf-8")
        yield workspace


@contextmanager
def _daemon(workspace: Path) -> Iterator[subprocess.Popen[bytes]]:
    words = ["-m", "dagster._daemon", "run", "--log-level", LOG_LEVEL, "--code-server-log-level", LOG_LEVEL]
    # A daemon that gets a signal while it starts prints a traceback. It reads the shutdown pipe once it has started.
    read_end, write_end = get_ipc_shutdown_pipe()
    words += ["--shutdown-pipe", str(read_end), "--workspace", str(workspace)]
    process = open_ipc_subprocess([sys.executable, *words], pass_fds=[read_end])
    try:
        yield process
    finally:
        _end(process, write_end)


def _end(process: subprocess.Popen[bytes], write_end: int) -> None:
    with suppress(BrokenPipeError):
        send_ipc_shutdown_message(write_end)
    try:
        process.wait(timeout=_DAEMON_ENDING_SEC)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_with(daemon: subprocess.Popen[bytes], server: uvicorn.Server) -> None:
    daemon.wait()
    server.should_exit = True
