"""Create the files of a new project, and the settings of its Dagster instance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmbatch_assets.adapters.files.atomic import write_atomically
from llmbatch_assets.adapters.files.yaml_files import is_in_postgres
from llmbatch_assets.errors import ConfigError, InputError


def create_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files, given by their paths in ``folder``. Raises ``InputError``, before writing any, if one exists."""
    existing = [str(folder / name) for name in files if (folder / name).exists()]
    if existing:
        raise InputError(
            f"nothing was written, because these files exist: {', '.join(existing)}; choose another folder or move them"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder")
    for name, content in files.items():
        write_atomically(folder / name, content)


def prepare_dagster_home(home: Path, default_settings: bytes) -> bool:
    """Write ``dagster.yaml`` if the folder has none. Return whether the instance keeps its events in PostgreSQL.

    Raises ``ConfigError`` if the folder cannot be used.
    """
    settings = home / "dagster.yaml"
    try:
        if not settings.exists():
            write_atomically(settings, default_settings)
        return is_in_postgres(settings)
    except OSError as refused:
        raise ConfigError(f"DAGSTER_HOME is {home}, which cannot be used: {refused.strerror}") from refused
