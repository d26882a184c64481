"""What is told of an export: ``pipeline5_manifest.json``, and its first lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmbatch_assets.domain.export.columns import Cell, Column, cell_text

PREVIEW_ROWS = 5
SHOWN_CHARS = 60

_ITEM_STATES = ("exported", "failed", "missing", "outdated")
# What only outputs of groups leave out.
_LINES = {
    "n_rows_beyond_cap": "row_beyond_cap",
    "n_rows_without_element": "row_without_element",
    "n_elements_without_row": "element_without_row",
}
_IN_WORDS = {
    "n_failed": "failed items",
    "n_missing": "not attempted",
    "n_outdated": "whose only output was made by other settings",
    "n_rows_beyond_cap": "rows beyond grouping.max_rows_per_group",
    "n_rows_without_element": "rows without an element",
    "n_elements_without_row": "elements without a row",
}
_CHANGES_IN_WORDS = {
    "cut_at_32767_characters": "cells cut, since Excel's hold 32,767 characters",
    "rows_on_further_sheets": "rows on further sheets, since Excel's have 1,048,576 rows",
    "columns_as_text": "columns written as texts, since they hold numbers beyond 64 bits",
}


def export_counts(items: Mapping[str, int], lines: Mapping[str, int]) -> dict[str, int]:
    """Counts of items by how they stand, which add up to ``n_items``, and of lines by what they are.

    ``n_not_exported`` is the number of lines in the file of what is in no export.
    """
    return {
        "n_records": lines.get("exported", 0),
        "n_items": sum(items.values()),
        **{f"n_{state}": items.get(state, 0) for state in _ITEM_STATES},
        "n_not_exported": sum(lines.values()) - lines.get("exported", 0),
        **{name: lines.get(state, 0) for name, state in _LINES.items()},
    }


def export_manifest(
    columns: Iterable[Column],
    files: Mapping[str, str],
    not_exported: str,
    counts: Mapping[str, int],
    changes: Mapping[str, Mapping[str, int]],
    set_aside: Sequence[str],
    meta: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest: what was written, with which columns, and what is not in it.

    ``changes`` counts, by format, what a format cannot hold as it is; ``set_aside`` are files of the export before.
    """
    return {
        "meta": {"pipeline": 5, **meta},
        "columns": [{"name": column.name, "from": column.origin, "type": column.type} for column in columns],
        "counts": dict(counts),
        "changes": {name: dict(sorted(changed.items())) for name, changed in changes.items() if changed},
        "files": dict(files),
        "not_exported_file": not_exported,
        "set_aside_files": list(set_aside),
    }


def told_of_export(manifest: Mapping[str, Any]) -> list[str]:
    """What a user should know of an export that was written."""
    counts, told = manifest["counts"], list[str]()
    if counts["n_not_exported"]:
        parts = [f"{counts[name]:,} {words}" for name, words in _IN_WORDS.items() if counts[name]]
        told.append(f"not exported: {', '.join(parts)}; see {manifest['not_exported_file']}")
    for name, changes in manifest["changes"].items():
        told += [
            f"{name}: {_CHANGES_IN_WORDS[kind]}: {count:,}"
            for kind, count in changes.items()
            if kind in _CHANGES_IN_WORDS
        ]
    if manifest["set_aside_files"]:
        told.append(
            f"the export before had records of a model and was kept as {', '.join(manifest['set_aside_files'])}"
        )
    return told


def is_worth_keeping(manifest: Mapping[str, Any]) -> bool:
    """Whether the export of this manifest has records that a model made."""
    return bool(manifest.get("counts", {}).get("n_records")) and manifest["meta"].get("provider") != "offline"


def preview(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> str:
    """The first lines of a table in Markdown, without effect on whatever shows it."""
    lines = [[_shown(cell_text(cell)) for cell in row] for row in rows]
    head = [[_shown(column.name) for column in columns], ["---"] * len(columns)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [*head, *lines])


def _shown(text: str) -> str:
    """The beginning of a text as code: pipes and backticks would end the cell or the code."""
    short = " ".join(text.split()).replace("`", "'").replace("|", "/")
    return f"`{short[:SHOWN_CHARS]}{'…' if len(short) > SHOWN_CHARS else ''}`" if short else ""
