"""What the model sees of a row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from llmbatch_assets.domain.items.table import KV_BLOCK, Row, nearest_first
from llmbatch_assets.domain.parameters import Context
from llmbatch_assets.domain.prompt import fill_placeholders, placeholders_in
from llmbatch_assets.domain.text import cut
from llmbatch_assets.errors import ConfigError

_LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
GROUP_BLANKS = {"group_key", "n_rows"}


class Rendered(NamedTuple):
    """A text for the model, and what was cut from it."""

    text: str
    cuts: dict[str, Any]


def shown_columns(columns: Sequence[str], settings: Context) -> list[str]:
    """The columns that the model sees, in the order in which it sees them. Raises ``ConfigError``."""
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
    """Renders rows of one table: the row template with the ``column: value`` lines filled in.

    Made once per table, since a large one is rendered by the hundred thousand. Raises ``ConfigError`` for a template
    with blanks that no column fills.
    """

    def __init__(self, columns: Sequence[str], settings: Context) -> None:
        self._settings = settings
        self._shown = [(name, f"{name}:", f"{name}: ") for name in shown_columns(columns, settings)]
        self._template = _template(settings)
        self._is_plain = self._template == f"{{{KV_BLOCK}}}"
        nameable = [column for column in columns if column not in settings.columns.exclude]
        self._blanks = {} if self._is_plain else _column_blanks(nameable, self._template)
        used = {name for name, _, _ in self._shown} | set(self._blanks.values())
        self._used = [column for column in columns if column in used]

    def __call__(self, row: Row) -> Rendered:
        """One row as text."""
        cut_names: list[str] = []
        if self._settings.truncate_field_chars:
            row, cut_names = self._truncated(row)
        block = "\n".join(
            [named + _continued(value) if (value := row[name]) else bare for name, bare, named in self._shown]
        )
        return Rendered(self._filled(row, block), {"truncated_fields": cut_names} if cut_names else {})

    def _truncated(self, row: Row) -> tuple[Row, list[str]]:
        values, cut_names = dict(row), []
        for name in self._used:
            values[name], was_cut = cut(row[name], self._settings.truncate_field_chars)
            cut_names += [name] if was_cut else []
        return values, cut_names

    def _filled(self, row: Row, block: str) -> str:
        if self._is_plain:
            return block
        values = {blank: row[name] for blank, name in self._blanks.items()}
        return fill_placeholders(self._template, values | {KV_BLOCK: block})


def limit(rendered: Rendered, settings: Context) -> Rendered:
    """The text cut to ``max_context_chars``."""
    text, was_cut = cut(rendered.text, settings.max_context_chars)
    return Rendered(text, rendered.cuts | {"context_truncated": True}) if was_cut else rendered


def check_group_templates(settings: Context) -> None:
    """Raise ``ConfigError`` naming the template with a blank that a group does not fill."""
    for key in ("group_header_template", "group_footer_template"):
        unknown = set(placeholders_in(getattr(settings, key))) - GROUP_BLANKS
        if unknown:
            raise ConfigError(f"context.{key}: nothing fills {{{min(unknown)}}}; known: {{group_key}}, {{n_rows}}")


def _template(settings: Context) -> str:
    template = settings.row_template
    if settings.auto_kv_block and KV_BLOCK not in placeholders_in(template):
        template = f"{template.rstrip()}\n{{{KV_BLOCK}}}".lstrip("\n")
    return template


def _column_blanks(columns: Sequence[str], template: str) -> dict[str, str]:
    """The columns that a template names, by the name of their blank: `Skill Level` is ``{Skill_Level}``."""
    named: dict[str, list[str]] = {}
    for column in columns:
        named.setdefault(re.sub(r"\W+", "_", column).strip("_"), []).append(column)
    used = [blank for blank in dict.fromkeys(placeholders_in(template)) if blank != KV_BLOCK]
    for blank in used:
        if len(named.get(blank, [])) > 1:
            raise ConfigError(f"context.row_template: {{{blank}}} can be any of the columns {named[blank]}; rename one")
    unknown = [blank for blank in used if blank not in named]
    if unknown:
        raise ConfigError(
            f"context.row_template: no column fills {', '.join(f'{{{blank}}}' for blank in unknown)}; use {{{KV_BLOCK}}} for all of them, or one of: "
            f"{', '.join(f'{{{blank}}}' for blank in named)}"
        )
    return {blank: named[blank][0] for blank in used}


def _continued(value: str) -> str:
    # Indented, so that a paragraph inside a value is not taken for the next column.
    return value if value.isprintable() else _LINE_BREAK.sub(r"\g<0>  ", value)
