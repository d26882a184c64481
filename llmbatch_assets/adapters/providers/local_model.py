"""The server of the embedded model: one per machine user, found or started, shared by all processes."""

from __future__ import annotations

import http.client
import importlib.util
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from llmbatch_assets.adapters.providers.model_file import (
    MODEL_SHA256,
    START_SECONDS,
    hold_lock,
    last_lines,
    model_cache_dir,
    model_file,
)
from llmbatch_assets.errors import LocalModelError

STOP_SECONDS = 5
HEALTH_SECONDS = 5

SERVER_SCRIPT = Path(__file__).with_name("local_model_server.py")

logger = logging.getLogger(__name__)


class ServerRecord(BaseModel):
    """``server.json``: which process serves, on which port. Another version of the tool may use another model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    model_sha256: str = MODEL_SHA256
    pid: int
    started: str
    port: int


def process_started(pid: int) -> str:
    """When the process began, as a word that no other process of the same id has; empty if there is none to ask.

    Process ids are used again, the pair of id and start is not.
    """
    try:
        # Field 22 counts ticks since boot; the second field is a name that may hold spaces, hence the split.
        ticks = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{ticks}"
    except OSError:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        other_unix = sys.platform not in {"linux", "win32"}
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip() if other_unix else ""


def base_url_alive(url: str) -> bool:
    """Whether a server answers there that it is ready."""
    address = urlsplit(url)
    # Not urllib's opener: that would ask the proxy of the environment for 127.0.0.1.
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def base_url(port: int) -> str:
    """The address of the server on that port."""
    return f"http://127.0.0.1:{port}/v1"


def find_server(folder: Path) -> str | None:
    """The base URL of the server that ``folder`` has on record, if that very process still serves this model."""
    try:
        record = ServerRecord.model_validate_json((folder / "server.json").read_bytes())
    except (OSError, ValidationError):
        return None
    same_process = record.started != "" and process_started(record.pid) == record.started
    url = base_url(record.port)
    return url if same_process and record.model_sha256 == MODEL_SHA256 and base_url_alive(url) else None


def require_xllamacpp() -> None:
    """Look for the extra without importing it: only the child process loads native code."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise LocalModelError("The embedded model needs xllamacpp. Install it: pip install 'llmbatch-assets[local]'")


def launch(model: Path, log_path: Path) -> subprocess.Popen[bytes]:
    """Start the child. It ends when our end of its standard input closes, so also when this process is killed."""
    # By path and with -P: no file in the working directory can stand in for a module, and the package is not imported.
    command = [sys.executable, "-P", str(SERVER_SCRIPT), "--model", str(model)]
    pipe = subprocess.PIPE
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        # A session of its own keeps the terminal's Ctrl-C and Ctrl-Z away from a server that others may be using.
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, start_new_session=True)


def wait_until_ready(child: subprocess.Popen[bytes], log_path: Path) -> int:
    """The child's port, once it answers there."""
    try:
        port = read_port(child)
        wait_for_health(child, base_url(port))
    except ValueError as error:
        said = f"{log_path} ends:\n{last_lines(log_path.read_bytes())}"
        raise LocalModelError(f"The embedded model's server did not start. {said}") from error
    return port


def read_port(child: subprocess.Popen[bytes]) -> int:
    """The port from the child's one line; ``ValueError`` if it ended or was ended before it wrote it."""
    assert child.stdout is not None
    limit = threading.Timer(START_SECONDS, child.kill)  # a readline has no time limit of its own
    limit.start()
    try:
        return int(json.loads(child.stdout.readline())["port"])
    finally:
        limit.cancel()


def wait_for_health(child: subprocess.Popen[bytes], url: str) -> None:
    """Return once the server answers; ``ValueError`` if it ends first or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not base_url_alive(url):
        if child.poll() is not None or time.monotonic() > deadline:
            raise ValueError(f"{url} does not answer")
        time.sleep(0.02)


def keeps_running(child: subprocess.Popen[bytes]) -> bool:
    """Whether a child that does not answer is merely busy. A dying one stops answering before it is gone."""
    try:
        child.wait(1)
    except subprocess.TimeoutExpired:
        return True
    return False


def stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the child to end by closing its standard input; insist if it does not."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    child.stdout.close()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class LocalServer:
    """The shared server as one process sees it: reused if another process runs it, started here if none does.

    A server started here ends with ``close()`` or with this process. Those who reuse it lose it then; they call
    ``url()`` again, and the first of them starts the next one.
    """

    def __init__(self, cache_dir: Path | None = None, log_path: Path | None = None) -> None:
        self._cache_dir = (cache_dir or model_cache_dir()).resolve()
        self._folder = self._cache_dir / "server"
        self._log_path = log_path or self._folder / "server.log"
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._url: str | None = None

    def url(self) -> str:
        """The base URL of a server that is alive now; may block for a start, and once for the download.

        From a coroutine: ``await asyncio.to_thread(server.url)``, again after a connection error.
        """
        with self._lock:
            if self._url is None or not self._is_alive(self._url):
                self._stop_child()
                self._url = self._find_or_start()
            return self._url

    def close(self) -> None:
        """End the server if it was started here; leave another process's alone."""
        with self._lock:
            self._stop_child()
            self._url = None

    def _is_alive(self, url: str) -> bool:
        return base_url_alive(url) or (self._child is not None and keeps_running(self._child))

    def _find_or_start(self) -> str:
        with hold_lock(self._folder / "server.lock"):
            return find_server(self._folder) or self._start()

    def _start(self) -> str:
        require_xllamacpp()
        self._child = launch(model_file(self._cache_dir), self._log_path)
        try:
            port = wait_until_ready(self._child, self._log_path)
        except BaseException:
            self._stop_child()
            raise
        record = ServerRecord(pid=self._child.pid, started=process_started(self._child.pid), port=port)
        (self._folder / "server.json").write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return base_url(port)

    def _stop_child(self) -> None:
        if self._child is not None:
            stop(self._child)
            self._child = None


@contextmanager
def serving_local_model(log_path: Path | None = None, cache_dir: Path | None = None) -> Iterator[str]:
    """Lend the base URL of this user's one server, ``http://127.0.0.1:PORT/v1``; see ``LocalServer``."""
    server = LocalServer(cache_dir, log_path)
    try:
        yield server.url()
    finally:
        server.close()
