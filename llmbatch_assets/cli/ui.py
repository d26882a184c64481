"""``llmbatch ui``: Dagster's webserver and daemon on the project's instance."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from pathlib import Path

import click

from llmbatch_assets.cli.session import config_option, console, open_batch_file, telling_mistakes, use_project_instance
from llmbatch_assets.domain.text import visible
from llmbatch_assets.errors import ConfigError
from llmbatch_assets.stages.project import CONFIG_ENV, BatchFile, config_files


@click.command()
@config_option
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", metavar="N", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on."
)
def ui(config: str | None, host: str, port: int) -> None:
    """Open the project in Dagster: lineage, partitions, runs.

    Webserver and daemon run on the project's own instance, dagster_home/, until Ctrl-C. A batch in configs/ whose file
    is wrong is left out, and told.

    Exit codes: 2 for wrong configuration or a port that is taken, 0 after Ctrl-C or SIGTERM.
    """
    with telling_mistakes():
        batch_file = open_batch_file(config)
        batch_file.load()
        for path in config_files(batch_file.path):
            _warn_of(path)
        _check_port(host, port)
        home = use_project_instance(batch_file.root)
        # Dagster would tell what is wrong with it at the end of a page.
        from llmbatch_assets.resources.instance import open_instance
        from llmbatch_assets.resources.storage_faults import translating_storage_errors

        with translating_storage_errors():
            open_instance().dispose()
    os.environ[CONFIG_ENV] = str(batch_file.path)
    console.print(f"Dagster on http://{host}:{port} (instance: {home})")
    where = ["-m", "llmbatch_assets.definitions", "-d", str(batch_file.root), "-h", host, "-p", str(port)]
    # Dagster takes this process over, so that a signal meant for us ends webserver and daemon, too. It ends on SIGTERM
    # as on SIGINT, and the latter is ignored in what a shell script has started in the background.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-m", "dagster", "dev", *where])


def _warn_of(path: Path) -> None:
    try:
        BatchFile(path).load()
    except ConfigError as mistake:
        console.print(f"the batch {path.stem} is left out: {visible(str(mistake))}", style="red")


def _check_port(host: str, port: int) -> None:
    """Raise ``ConfigError`` where the webserver could not listen; Dagster would start a daemon first and say it late."""
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: what an ended one has left in the kernel is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as refused:
        reason = "is taken by another program" if refused.errno == errno.EADDRINUSE else f"cannot be used ({refused})"
        raise ConfigError(f"port {port} of {host} {reason}; choose another one with --port") from None
