"""``llmbatch ui``: serve Dagster's pages on the project's instance, with its daemon."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import click

from llmbatch_assets.cli.session import config_option, console, open_batch_file, reporting_errors, use_project_instance
from llmbatch_assets.cli.webserver.guard import Address, KnownHosts, is_loopback
from llmbatch_assets.domain.text import visible
from llmbatch_assets.errors import ConfigError, SharedFilesError
from llmbatch_assets.stages.project import CONFIG_ENV, BatchFile, config_files

# At most this many different reasons are printed.
_REPORTED_REFUSALS = 20


@click.command()
@config_option
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", metavar="N", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on."
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    metavar="NAME",
    multiple=True,
    callback=lambda _context, _option, names: [_host_name(name) for name in names],
    help="Additional host name under which you open the pages, such as a proxy's; repeatable. *.NAME allows subdomains.",
)
@click.option(
    "--path-prefix",
    metavar="PATH",
    default="",
    envvar="DAGSTER_WEBSERVER_PATH_PREFIX",
    callback=lambda _context, _option, path: _prefix(path),
    help="Path under which a proxy serves the pages, such as /dagster.",
)
def ui(config: str | None, host: str, port: int, allowed_hosts: list[str], path_prefix: str) -> None:
    """Open the project in Dagster: lineage, partitions, runs.

    Starts Dagster's webserver and daemon on the project's own instance, dagster_home/, until you press Ctrl-C. Prints
    problems and what runs log. Batches with an invalid configuration are reported and skipped.

    The pages have no login. Requests from other web pages are refused, and so are host names other than localhost. If
    you open the pages under another name, for example through a proxy, allow it with --allowed-host.

    Exit codes: 0 after Ctrl-C or SIGTERM, 1 the daemon exited unexpectedly, 2 invalid configuration, the port is in
    use, or a daemon already runs on the instance.
    """
    with reporting_errors():
        batch_file = open_batch_file(config)
        _report_invalid(batch_file)
        _check_port(host, port)
        home = use_project_instance(batch_file.root)
        _check_daemons(home)
        os.environ[CONFIG_ENV] = str(batch_file.path)
        _serve(batch_file.root, home, Address(host, port, path_prefix), KnownHosts(host, allowed_hosts))


def _serve(project: Path, home: Path, address: Address, known: KnownHosts) -> None:
    # Imported late: Dagster's webserver takes a second to import.
    from llmbatch_assets.cli.webserver.services import interrupted_by_signals, serve

    console.print(f"Dagster on {address.url} (instance: {home})")
    if not is_loopback(address.host):
        console.print(
            f"Other machines can reach {address.host}, and Dagster has no login: anyone who opens the pages can read inputs "
            "and outputs and start runs that cost money. Prefer 127.0.0.1 with an SSH tunnel, or a proxy with a login.",
            style="red",
        )
    with interrupted_by_signals():
        serve(project, address, known, _refusal_reporter())


def _refusal_reporter() -> Callable[[str], None]:
    """Prints each reason once, so that users behind a proxy see what to allow."""
    reasons: set[str] = set()

    def report(reason: str) -> None:
        if reason not in reasons and len(reasons) < _REPORTED_REFUSALS:
            reasons.add(reason)
            console.print(f"Refused a request: {visible(reason)}", style="red")

    return report


def _host_name(text: str) -> str:
    """Accepts a host name, also as part of an address copied from a browser: scheme, port and path are dropped."""
    try:
        name = urlsplit(text if "//" in text else f"//{text}").hostname or ""
    except ValueError:
        name = ""
    if not re.fullmatch(r"(\*\.)?[\w.:-]+", name):
        raise click.BadParameter(f"{text!r} is not a host name; write for example dagster.example.com")
    return name.removesuffix(".")


def _prefix(path: str) -> str:
    return f"/{path.strip('/')}" if path.strip("/") else ""


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
