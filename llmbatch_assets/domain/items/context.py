"""Render a row, or the rows of a group, as text for the model."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from llmbatch_assets.domain.configuration.input_blocks import Context
from llmbatch_assets.domain.items.table import Row, nearest_first
from llmbatch_assets.domain.placeholders import (
    GROUP_PLACEHOLDERS,
    KV_BLOCK,
    ColumnNames,
    ambiguity,
    braced,
    unknown_placeholders,
)
from llmbatch_assets.domain.prompt import fill_placeholders, placeholders_in
from llmbatch_assets.domain.text import cut
from llmbatch_assets.errors import ConfigError

_LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_NO_COLUMNS: Mapping[str, str] = {}


class RenderedText(NamedTuple):
    """Text for the model. ``cuts`` is item metadata about what was truncated; ``columns`` are those that prompts name."""

    text: str
    cuts: dict[str, Any]
    columns: Mapping[str, str] = _NO_COLUMNS


def shown_columns(columns: Sequence[str], settings: Context) -> list[str]:
    """Return the columns that the model sees, in display order. Raises ``ConfigError``."""
    choice = settings.columns
    for name in (*choice.include, *choice.exclude):
        if name not in columns:
            raise ConfigError(
                f"context.columns names {name!r}, which the table lacks; it has: {nearest_first(name, columns)}"
            )
    chosen = choice.include if choice.mode == "include" else columns
    shown = [name for name in dict.fromkeys(chosen) if name not in choice.exclude]
    if not shown:
        raise ConfigError("context.columns leaves no column for the model to see")
    return sorted(shown) if settings.kv_order == "alpha" else shown


class RowRenderer:
    """Renders the rows of one table with the row template.

    Everything that depends only on the template is prepared once, since tables have up to 100,000 rows. ``named`` are the
    columns that prompts name. Raises ``ConfigError`` for a placeholder of the template that names no column.
    """

    def __init__(self, columns: Sequence[str], settings: Context, named: Collection[str] = ()) -> None:
        self._settings = settings
        self._shown = [(name, f"{name}:", f"{name}: ") for name in shown_columns(columns, settings)]
        self._template = _row_template(settings)
        self._is_plain = self._template == f"{{{KV_BLOCK}}}"
        nameable = [column for column in columns if column not in settings.columns.exclude]
        self._column_of = {} if self._is_plain else _column_placeholders(nameable, self._template)
        self._named = list(named)
        is_whole = self._is_plain and not settings.max_context_chars
        # The columns whose values the text of a row determines.
        self.columns_in_full = {name for name, _, _ in self._shown} if is_whole else set()
        used = {name for name, _, _ in self._shown} | set(self._column_of.values()) | set(self._named)
        self._used = [column for column in columns if column in used]

    def __call__(self, row: Row) -> RenderedText:
        cut_names: list[str] = []
        if self._settings.truncate_field_chars:
            row, cut_names = self._truncated(row)
        block = "\n".join(
            [named + _indented(value) if (value := row[name]) else bare for name, bare, named in self._shown]
        )
        text = block
        if not self._is_plain:
            values = {placeholder: row[name] for placeholder, name in self._column_of.items()}
            text = fill_placeholders(self._template, values | {KV_BLOCK: block})
        columns = {name: row[name] for name in self._named} if self._named else _NO_COLUMNS
        return RenderedText(text, {"truncated_fields": cut_names} if cut_names else {}, columns)

    def _truncated(self, row: Row) -> tuple[Row, list[str]]:
        values, cut_names = dict(row), []
        for name in self._used:
            values[name], was_cut = cut(row[name], self._settings.truncate_field_chars)
            cut_names += [name] if was_cut else []
        return values, cut_names


def limit_length(rendered: RenderedText, settings: Context) -> RenderedText:
    """Cut the text to ``max_context_chars`` and record that in ``cuts``."""
    text, was_cut = cut(rendered.text, settings.max_context_chars)
    return rendered._replace(text=text, cuts=rendered.cuts | {"context_truncated": True}) if was_cut else rendered


def group_template_mistakes(settings: Context) -> list[str]:
    """Return a message for each group template with an unknown placeholder."""
    found = []
    for key in ("group_header_template", "group_footer_template"):
        unknown = sorted(set(placeholders_in(getattr(settings, key))) - GROUP_PLACEHOLDERS)
        if unknown:
            known = braced(sorted(GROUP_PLACEHOLDERS))
            found.append(f"context.{key}: unknown placeholder {braced(unknown)}; known: {known}")
    return found


def _row_template(settings: Context) -> str:
    template = settings.row_template
    if settings.auto_kv_block and KV_BLOCK not in placeholders_in(template):
        template = f"{template.rstrip()}\n{{{KV_BLOCK}}}".lstrip("\n")
    return template


def _column_placeholders(columns: Sequence[str], template: str) -> dict[str, str]:
    """Map the template's placeholders to columns. Raises ``ConfigError``."""
    used = [name for name in dict.fromkeys(placeholders_in(template)) if name != KV_BLOCK]
    known = ColumnNames(columns)
    found = {name: known.named(name) for name in used}
    for name, several in found.items():
        if len(several) > 1:
            raise ConfigError(f"context.row_template: {ambiguity(name, several)}")
    if unknown := [name for name in used if not found[name]]:
        raise ConfigError(f"context.row_template: {unknown_placeholders(unknown, [KV_BLOCK], columns)}")
    return {name: found[name][0] for name in used}


def _indented(value: str) -> str:
    # Otherwise a paragraph inside a value could be read as the next column.
    return value if value.isprintable() else _LINE_BREAK.sub(r"\g<0>  ", value)
