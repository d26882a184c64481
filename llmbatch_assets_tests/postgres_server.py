"""A throw-away PostgreSQL server, reached by a socket in its own folder: no port, no password, nothing left behind."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2

START_SECONDS = 60


def find_server() -> Path | None:
    """The server's program; Debian keeps it off the path."""
    on_path = shutil.which("postgres")
    if on_path:
        return Path(on_path).resolve()
    return max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default=None)


@contextmanager
def postgres_server(program: Path, *, durable: bool = False) -> Iterator[str]:
    """Run a server; gives the URL of an empty database. Not ``durable`` is faster, and enough for tests."""
    # The server refuses to be root's.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    # A short path, since that of a socket may have 100 characters, and one that the server's user can reach.
    folder = Path(tempfile.mkdtemp(prefix="llmbatch-pg-", dir="/tmp"))
    shutil.chown(folder, user)
    initdb = [
        str(program.with_name("initdb")),
        "-D",
        str(folder / "data"),
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
    ]
    try:
        subprocess.run([*initdb, "--no-sync", "--locale=C"], user=user, check=True, capture_output=True, cwd=folder)
        settings = ["-c", "listen_addresses=", "-c", f"fsync={'on' if durable else 'off'}"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [program, "-D", folder / "data", "-k", folder, *settings], user=user, cwd=folder, stdout=log, stderr=log
            )
        try:
            _wait_for(folder, server)
            yield f"postgresql+psycopg2://postgres@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown, clients or not
            server.wait(timeout=START_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_database(url: str) -> str:
    """Make another empty database on the server of this URL; gives its URL."""
    name = f"test_{uuid.uuid4().hex}"
    with closing(psycopg2.connect(url.replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?")


def _wait_for(folder: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg2.connect(host=str(folder), user="postgres", dbname="postgres").close()
        except psycopg2.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(folder / 'log').read_text()}") from None
            time.sleep(0.05)
        else:
            return
