"""Dagster's records as a run has left them, recognized without loading Dagster."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from llmbatch_assets.adapters.files.atomic import read_regular
from llmbatch_assets.adapters.files.file_version import FileVersion, file_version
from llmbatch_assets.domain.canonical import sha1_named

# In dagster.yaml, a value from the environment.
_VARIABLE = re.compile(rb"env:\s*[\"']?(\w+)")


def dagster_home(root: Path) -> Path:
    """Return the folder of the Dagster instance of a project: its own, unless the environment names another."""
    return Path(os.environ.get("DAGSTER_HOME") or root / "dagster_home").resolve()


class RecordMark(NamedTuple):
    """A file among Dagster's databases that holds the token until somebody else writes there. Without a path there is none."""

    path: Path | None
    token: str

    @property
    def holds(self) -> bool:
        """Whether nobody else has written since."""
        try:
            return self.path is not None and self.path.read_text(encoding="ascii") == self.token
        except (OSError, ValueError):
            return False


class Records(BaseModel):
    """The instance that a run has written to: its folder, its settings with their variables, its database and the mark."""

    home: str
    settings: FileVersion | None
    variables: str
    index: int | None
    mark: str
    token: str

    @classmethod
    def of(cls, mark: RecordMark, home: Path) -> Records | None:
        """Return the records with this mark; None if somebody else has written, or where that would not show."""
        if mark.path is None or not mark.holds:
            return None
        settings = home / "dagster.yaml"
        index = file_version(mark.path.parents[1] / "index.db")
        return cls(
            home=str(home),
            settings=file_version(settings),
            variables=_variables(settings),
            index=index and index.inode,
            mark=str(mark.path),
            token=mark.token,
        )

    def are_unchanged(self, home: Path) -> bool:
        """Return whether a run in the instance of this folder would find them as they were left."""
        return self.index is not None and Records.of(RecordMark(Path(self.mark), self.token), home) == self


def _variables(settings: Path) -> str:
    """Return a fingerprint of the environment variables that the settings name."""
    try:
        names = sorted({name.decode() for name in _VARIABLE.findall(read_regular(settings))})
    except OSError:
        return ""
    # The home is compared on its own, and not everybody sets it.
    return sha1_named(**{name: os.environ.get(name) for name in names if name != "DAGSTER_HOME"})
