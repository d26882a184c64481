"""Find files that a run would overwrite but that no run has written. They belong to the user, so the run stops."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.file_uses import FileUse, named_files, named_folders
from llmbatch_assets.errors import ConfigError, InputError, LlmBatchError
from llmbatch_assets.stages.artifacts import artifact_path
from llmbatch_assets.stages.project import Batch

# The assets that write files at paths that the configuration names.
_BLOCKS = {"export": "outputs", "report": "report"}
# Columns that only our own tables have.
_OUR_COLUMNS = {"meta", "meta_work_id", "partition_key"}
_OUR_MARKDOWN = re.compile(rb"# .*\n\n\*\*[\d,]+ of [\d,]+ items accepted\*\*")
_OUR_HTML = b'<script type="application/json" id="rows">'
_OUR_LOG_LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")
_HEAD_BYTES = 10_000


def require_own_files(batch: Batch, asset: str) -> None:
    """Raise ``ConfigError`` if an asset would replace a file that no run has written, or cannot write its own."""
    if problems := file_problems(batch, [asset]):
        raise ConfigError("\n".join(problems))


def file_problems(batch: Batch, assets: Collection[str]) -> list[str]:
    """Return a message for each file that these assets would replace although no run has written it, or cannot write."""
    return [*_foreign(batch, assets), *_foreign_log(batch), *_without_permission(batch, assets)]


def _foreign_log(batch: Batch) -> Iterator[str]:
    path = batch.layout.log_file
    if path and (head := _head(batch.path(path))) and not _OUR_LOG_LINE.match(head):
        yield _foreign_file("run.log_file", path)


def _foreign_file(key: str, path: PurePosixPath) -> str:
    return f"{key}: {path} exists and was not written by a run; move it away, or name another file"


def _foreign(batch: Batch, assets: Collection[str]) -> Iterator[str]:
    for asset in _BLOCKS:
        uses = [use for use in named_files(batch.layout) if _belongs_to(use, asset) and asset in assets]
        chosen = [use for use in uses if not _is_default(batch, use)]
        known = _recorded(batch, asset) if chosen else frozenset()
        for use in chosen:
            if str(use.path) not in known and not _is_ours(use, batch.path(use.path)):
                yield _foreign_file(use.key, use.path)


def _is_default(batch: Batch, use: FileUse) -> bool:
    """Return whether the path is a default one in the folder for artifacts, where everything is ours."""
    return not use.is_named_in(batch.layout) and use.path.is_relative_to(batch.layout.artifacts)


def _belongs_to(use: FileUse, asset: str) -> bool:
    return use.key.startswith(f"{_BLOCKS[asset]}.")


def _recorded(batch: Batch, asset: str) -> frozenset[str]:
    """Return the files that the last run of an asset has written."""
    try:
        manifest: dict[str, Any] = read_json(artifact_path(batch, asset))
        several = [*manifest["files"].values(), *manifest.get("set_aside_files", ())]
        return frozenset([*several, manifest.get("not_exported_file", "")])
    except (LlmBatchError, LookupError, TypeError, AttributeError):
        return frozenset()


def _is_ours(use: FileUse, path: Path) -> bool:
    """Return whether a file that no manifest lists can be replaced: it is missing, empty or of a form that runs write."""
    head = _head(path)
    if not head:
        return True
    if use.key.startswith("report."):
        return bool(_OUR_MARKDOWN.match(head)) or _OUR_HTML in path.read_bytes()
    file_format = use.key.removeprefix("outputs.").removesuffix("_path")
    written_as = "csv" if file_format == "not_exported" else file_format
    try:
        table = read_table(path, Input.model_validate({"path": str(path), "format": written_as}))
    except InputError:
        return False
    return not _OUR_COLUMNS.isdisjoint(table.columns)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""


def _without_permission(batch: Batch, assets: Collection[str]) -> Iterator[str]:
    """Yield the paths whose folder, or the nearest one that exists above it, cannot be written."""
    uses = [use for use in named_files(batch.layout) if any(_belongs_to(use, one) for one in _BLOCKS if one in assets)]
    for use in [*named_folders(batch.layout), *uses]:
        path = batch.path(use.path)
        folder = next((one for one in (path, *path.parents) if one.is_dir()), path)
        if not os.access(folder, os.W_OK | os.X_OK):
            yield f"{use.key}: {use.path} cannot be written: no permission to write in {folder}"
