"""Values read from files, kept for later readers in this process as long as the files do not change.

The check before a run reads what its stages need, and several stages need the same artifacts. Large ones take seconds to read.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any, NamedTuple

from llmbatch_assets.adapters.files.file_version import FileVersion, file_version


class _Kept(NamedTuple):
    version: FileVersion
    value: Any


class KeptValues:
    """The values that were read last, at most ``most``. ``kind`` is what else a value depends on than its file."""

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._values: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    def keep(self, path: str | os.PathLike[str], kind: str, version: FileVersion | None, value: Any) -> None:
        """Keep the value of a file that had this version before it was read, if a later change is certain to show."""
        if version is None or not version.is_settled:
            return
        self._values[os.fspath(path), kind] = _Kept(version, value)
        while len(self._values) > self._most:
            self._values.popitem(last=False)

    def get(self, path: str | os.PathLike[str], kind: str) -> Any:
        """Return the value of the file as it is now; None if it is not kept."""
        kept = self._values.get((os.fspath(path), kind))
        return kept.value if kept and kept.version == file_version(path) else None

    def drop(self, path: str | os.PathLike[str], kind: str) -> None:
        """Free the memory of a value."""
        self._values.pop((os.fspath(path), kind), None)


KEPT = KeptValues()
