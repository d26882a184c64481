"""Data quality: what was changed in the table before the model saw it, and what deserves a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llmbatch_assets.domain.report.findings import Findings

MOST_CHANGES = 100
MOST_WARNINGS = 50

_KINDS = {
    "null_token": "words for nothing, made empty",
    "trimmed": "blanks at the ends, taken away",
    "line_breaks": "line breaks and tabs, made a space",
    "invisible": "invisible or look-alike characters, made plain",
    "unescaped": "escaped delimiters, made plain",
}


class Change(NamedTuple):
    """How many cells of a column were changed in one way."""

    kind: str
    column: str
    cells: int


class Quality(NamedTuple):
    """What is told about the data. ``more_cells`` are changed cells of further columns, beyond those listed."""

    facts: dict[str, Any]
    changes: list[Change]
    more_cells: int
    warnings: list[str]


def quality(meta: Mapping[str, Any], plan_warnings: Sequence[str], findings: Findings) -> Quality:
    """What the snapshot's ``meta``, the plan and the items tell."""
    changes = [
        Change(_KINDS.get(kind, kind), column, cells)
        for kind, columns in meta.get("cells_changed", {}).items()
        for column, cells in columns.items()
    ]
    changes.sort(key=lambda change: -change.cells)
    facts = {
        "table": meta.get("input_path", ""),
        "format": meta.get("input_format", ""),
        "rows": meta.get("n_rows", 0),
        "columns": meta.get("n_cols", 0),
        "cells changed": sum(change.cells for change in changes),
        "rows that share the output of an identical one": findings.n_sharing_rows,
        "items whose text was cut (context.truncate_field_chars, context.max_context_chars)": findings.n_cut_contexts,
    }
    hidden = sum(change.cells for change in changes[MOST_CHANGES:])
    return Quality(facts, changes[:MOST_CHANGES], hidden, _first([*meta.get("warnings", ()), *plan_warnings]))


def _first(warnings: Sequence[str]) -> list[str]:
    more = len(warnings) - MOST_WARNINGS
    return [*warnings[:MOST_WARNINGS], *([f"and {more} more"] if more > 0 else [])]
