"""``llmbatch ui``: Dagster's webserver and daemon on the project's instance."""

from __future__ import annotations

import os
import signal
import sys

import click

from llmbatch_assets.adapters.project import CONFIG_ENV, BatchFile, config_files
from llmbatch_assets.cli.session import config_option, console, open_batch_file, telling_mistakes, use_project_instance


@click.command()
@config_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
def ui(config: str | None, host: str, port: int) -> None:
    """Open the project in Dagster: lineage, partitions, runs. Ends with Ctrl-C."""
    with telling_mistakes():
        batch_file = open_batch_file(config)
        for path in config_files(batch_file.path):
            BatchFile(path).load()
        home = use_project_instance(batch_file.root)
    os.environ[CONFIG_ENV] = str(batch_file.path)
    console.print(f"Dagster on http://{host}:{port} (instance: {home})")
    where = ["-m", "llmbatch_assets.definitions", "-d", str(batch_file.root), "-h", host, "-p", str(port)]
    # Dagster takes this process over, so that a signal meant for us ends webserver and daemon, too. It ends on SIGTERM
    # as on SIGINT, and the latter is ignored in what a shell script has started in the background.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-m", "dagster", "dev", *where])
