"""``llmbatch ui``: start Dagster's webserver and daemon on the project's instance."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from pathlib import Path

import click

from llmbatch_assets.cli.session import config_option, console, open_batch_file, reporting_errors, use_project_instance
from llmbatch_assets.domain.text import visible
from llmbatch_assets.errors import ConfigError, SharedFilesError
from llmbatch_assets.stages.project import CONFIG_ENV, BatchFile, config_files

# Dagster recommends `dg dev` instead, which needs another package.
_NO_REMARK = ("-W", "ignore:Function `dev_command` is superseded")


@click.command()
@config_option
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", metavar="N", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on."
)
def ui(config: str | None, host: str, port: int) -> None:
    """Open the project in Dagster: lineage, partitions, runs.

    Starts Dagster's webserver and daemon on the project's own instance, dagster_home/, until you press Ctrl-C. Prints
    problems and what runs log. Batches with an invalid configuration are reported and skipped.

    Exit codes: 0 after Ctrl-C or SIGTERM, 2 invalid configuration, or the port is in use, or a daemon already runs on
    the instance.
    """
    with reporting_errors():
        batch_file = open_batch_file(config)
        _report_invalid(batch_file)
        _check_port(host, port)
        home = use_project_instance(batch_file.root)
        _check_daemons(home)
    os.environ[CONFIG_ENV] = str(batch_file.path)
    console.print(f"Dagster on http://{host}:{port} (instance: {home})")
    where = ["-m", "llmbatch_assets.definitions", "-d", str(batch_file.root), "-h", host, "-p", str(port)]
    # Dagster replaces this process, so that a signal sent to it also ends webserver and daemon. Dagster turns SIGTERM into
    # SIGINT, which background processes of shell scripts ignore unless the default is restored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, *_NO_REMARK, "-m", "dagster", "dev", "--log-level", "warning", *where])


def _report_invalid(chosen: BatchFile) -> None:
    """Print the batches that Dagster will skip. Raises ``ConfigError`` if the chosen one is invalid, or none is left."""
    paths, skipped = config_files(chosen.path), list[ConfigError]()
    for path in paths:
        try:
            BatchFile(path).load()
        except ConfigError as mistake:
            if path == chosen.path and not isinstance(mistake, SharedFilesError):
                raise
            skipped.append(mistake)
            console.print(f"skipping batch {path.stem}: {visible(str(mistake))}", style="red")
    if len(skipped) == len(paths):
        raise skipped[0]


def _check_daemons(home: Path) -> None:
    """Raise ``ConfigError`` if a daemon already runs on the instance: each would take runs that the other launched."""
    from llmbatch_assets.resources.daemons import daemon_elsewhere, running_daemon
    from llmbatch_assets.resources.instance import open_instance, translating_storage_errors

    if (daemon := running_daemon(home)) is not None:
        raise ConfigError(
            f"a Dagster daemon already runs on {home} (process {daemon}); open its page, or stop that process first"
        )
    # Dagster would bury the reason why an instance cannot be opened at the end of a long traceback.
    with translating_storage_errors(), open_instance() as instance:
        if daemon_elsewhere(instance, lambda line: console.print(line)):
            raise ConfigError(
                f"a Dagster daemon on another machine uses the database of {home}; open its page, or stop it first"
            )


def _check_port(host: str, port: int) -> None:
    """Raise ``ConfigError`` if the webserver cannot listen there; Dagster would start a daemon before it finds out."""
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: connections of a previous server that are still closing do not block the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as refused:
        reason = "is in use by another program" if refused.errno == errno.EADDRINUSE else f"cannot be used ({refused})"
        raise ConfigError(f"port {port} of {host} {reason}; choose another one with --port") from None
