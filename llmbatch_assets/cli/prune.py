"""``llmbatch prune``: list or delete the files that the current settings do not use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from llmbatch_assets.cli.session import (
    config_option,
    json_option,
    open_batch_file,
    print_json,
    print_lines,
    reporting_errors,
)
from llmbatch_assets.domain.text import counted
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.prune import Pruning, Unused, delete, find_unused

LOST = (
    "If you delete these, going back to an earlier prompt, schema, model or judge means paying again, and llmbatch diff "
    "can no longer compare with it."
)
_UNITS = ("bytes", "kB", "MB", "GB")
_STEP = 1000


@click.command()
@config_option
@click.option(
    "--yes/--dry-run", "is_deleting", default=False, help="Delete the files, or only list them.  [default: --dry-run]"
)
@click.option(
    "--gone-rows", is_flag=True, help="Include files of the current settings whose rows are no longer in the table."
)
@json_option
def prune(config: str | None, is_deleting: bool, gone_rows: bool, as_json: bool) -> None:
    """List or delete files that the current settings do not use.

    These are outputs and failed attempts of other prompts, schemas, models or judges (including those of --offline),
    broken files that were set aside, leftover answers and markers of earlier settings, and archived schema files. Files
    that the current settings of any batch in configs/ use are kept, and so are outputs that the current judge has not
    judged yet, and the call log.

    Exit codes: 0 success, 1 a run of the batch is active, 2 invalid configuration or input.
    """
    with reporting_errors():
        batch_file = open_batch_file(config)
        pruning, batch = find_unused(batch_file, gone_rows=gone_rows), batch_file.load()
        kinds = _by_kind(pruning.unused)
        if is_deleting:
            delete(batch, pruning.unused)
        if as_json:
            print_json(_as_json(batch, pruning, kinds, is_deleting))
            return
        print_lines(*_lines(pruning, kinds, is_deleting))


def _by_kind(unused: Sequence[Unused]) -> dict[str, dict[str, int]]:
    """Count the files and bytes of each kind."""
    kinds: dict[str, dict[str, int]] = {}
    for file in unused:
        sums = kinds.setdefault(file.kind, {"n_files": 0, "bytes": 0})
        sums["n_files"] += 1
        sums["bytes"] += file.path.stat().st_size
    return kinds


def _lines(pruning: Pruning, kinds: dict[str, dict[str, int]], is_deleted: bool) -> Iterator[str]:
    if not kinds:
        yield "nothing to prune"
    else:
        yield "deleted:" if is_deleted else "would be deleted (--yes deletes them, --json lists each file):"
    for kind, sums in kinds.items():
        yield f"  {kind}: {counted(sums['n_files'], 'file')}, {_size(sums['bytes'])}"
    if kinds:
        yield f"total: {counted(len(pruning.unused), 'file')}, {_size(sum(sums['bytes'] for sums in kinds.values()))}"
        yield LOST
    if pruning.n_gone_rows_kept:
        yield (
            f"kept: {counted(pruning.n_gone_rows_kept, 'file')} of the current settings for rows that are no longer in the "
            "table; --gone-rows includes them"
        )


def _size(number: float) -> str:
    for unit in _UNITS[:-1]:
        if number < _STEP:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= _STEP
    return f"{number:.1f} {_UNITS[-1]}"


def _as_json(batch: Batch, pruning: Pruning, kinds: dict[str, dict[str, int]], is_deleted: bool) -> dict[str, Any]:
    return {
        "deleted": is_deleted,
        "kinds": [{"kind": kind, **sums} for kind, sums in kinds.items()],
        "n_gone_rows_kept": pruning.n_gone_rows_kept,
        "files": [batch.shown(file.path) for file in pruning.unused],
    }
