"""What the model sees of a row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from llmbatch_assets.domain.parameters import Context
from llmbatch_assets.domain.prompt import blanks, fill
from llmbatch_assets.domain.table import Row
from llmbatch_assets.domain.text import cut
from llmbatch_assets.errors import ConfigError

KV_BLOCK = "__ROW_KV_BLOCK__"


class Rendered(NamedTuple):
    """A text for the model, and what was cut from it."""

    text: str
    cuts: dict[str, Any]


def shown_columns(columns: Sequence[str], settings: Context) -> list[str]:
    """The columns that the model sees, in the order in which it sees them. Raises ``ConfigError``."""
    choice = settings.columns
    for name in (*choice.include, *choice.exclude):
        if name not in columns:
            raise ConfigError(f"context.columns names {name!r}, which the table lacks; it has: {', '.join(columns)}")
    chosen = choice.include if choice.mode == "include" else columns
    shown = [name for name in chosen if name not in choice.exclude]
    if not shown:
        raise ConfigError("context.columns leaves no column for the model to see")
    return sorted(shown) if settings.kv_order == "alpha" else shown


def render_row(row: Row, columns: Sequence[str], settings: Context) -> Rendered:
    """One row as text: its template with the ``column: value`` lines filled in."""
    values, cut_names = dict(row), []
    for name in columns if settings.truncate_field_chars else ():
        values[name], was_cut = cut(row[name], settings.truncate_field_chars)
        cut_names += [name] if was_cut else []
    block = "\n".join(f"{name}: {_continued(values[name])}".rstrip() for name in columns)
    text = fill(_template(settings), {_blank_name(name): values[name] for name in row} | {KV_BLOCK: block})
    return Rendered(text, {"truncated_fields": cut_names} if cut_names else {})


def check_row_template(columns: Sequence[str], settings: Context) -> None:
    """Raise ``ConfigError`` naming the blanks of ``row_template`` that no column fills."""
    unknown = sorted(set(blanks(settings.row_template)) - {KV_BLOCK, *map(_blank_name, columns)})
    if unknown:
        raise ConfigError(f"context.row_template: no column is named {', '.join(unknown)}; use {{{KV_BLOCK}}} for all")


def limit(rendered: Rendered, settings: Context) -> Rendered:
    """The text cut to ``max_context_chars``."""
    text, was_cut = cut(rendered.text, settings.max_context_chars)
    return Rendered(text, rendered.cuts | ({"context_truncated": True} if was_cut else {}))


def _template(settings: Context) -> str:
    template = settings.row_template
    if settings.auto_kv_block and KV_BLOCK not in blanks(template):
        template = f"{template.rstrip()}\n{{{KV_BLOCK}}}".lstrip("\n")
    return template


def _blank_name(column: str) -> str:
    return re.sub(r"\W+", "_", column).strip("_")


def _continued(value: str) -> str:
    # Indented, so that a paragraph inside a value is not taken for the next column.
    return value.replace("\n", "\n  ")
