"""All that a configuration asks of a table's columns and the table does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from llmbatch_assets.domain.items.context import RowRenderer, check_group_templates
from llmbatch_assets.domain.items.table import nearest_first
from llmbatch_assets.domain.parameters import Context, Parameters
from llmbatch_assets.errors import ConfigError


def column_mistakes(columns: Sequence[str], parameters: Parameters) -> list[str]:
    """One message for each name that no column has, and for each template that cannot be filled."""
    absent = [(key, name) for key, name in _named(parameters) if name and name not in columns]
    found = [f"{key}: the table has no column {name!r}; it has: {nearest_first(name, columns)}" for key, name in absent]
    if not any(key.startswith("context.columns") for key, _ in absent):
        found += _refused(lambda: RowRenderer(columns, parameters.context))
    return [*found, *template_mistakes(parameters.context)]


def template_mistakes(context: Context) -> list[str]:
    """One message for each group template with a blank that a group does not fill."""
    plain = {"group_header_template": "", "group_footer_template": ""}
    each = [context.model_copy(update=plain | {name: getattr(context, name)}) for name in plain]
    return [told for one in each for told in _refused(lambda one=one: check_group_templates(one))]  # type: ignore[misc]  # bound at once


def _named(parameters: Parameters) -> Iterator[tuple[str, str]]:
    chosen = parameters.context.columns
    yield from (("input.required_columns", name) for name in parameters.input.required_columns)
    if parameters.grouping.enabled:
        yield "grouping.column", parameters.grouping.column
    yield "work_items.label_column", parameters.work_items.label_column
    yield from (("context.columns.include", name) for name in chosen.include)
    yield from (("context.columns.exclude", name) for name in chosen.exclude)


def _refused(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except ConfigError as mistake:
        return [str(mistake)]
    return []
