"""Names that the table lacks, and suspicious settings, as messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.items.context import RowRenderer, group_template_mistakes
from llmbatch_assets.domain.items.grouping import named_columns
from llmbatch_assets.domain.items.table import nearest_first
from llmbatch_assets.errors import ConfigError


def column_mistakes(columns: Sequence[str], parameters: Parameters) -> list[str]:
    """Return a message for each name that is not a column, and for each template with an unknown placeholder."""
    missing = [(key, name) for key, name in _column_names(parameters) if name and name not in columns]
    found = [
        f"{key}: {parameters.input.path} has no column {name!r}; it has: {nearest_first(name, columns)}"
        for key, name in missing
    ]
    if not any(key.startswith("context.columns") for key, _ in missing):
        try:
            RowRenderer(columns, parameters.context)
        except ConfigError as mistake:
            found.append(str(mistake))
    return [*found, *group_template_mistakes(parameters.context)]


def _column_names(parameters: Parameters) -> Iterator[tuple[str, str]]:
    selection = parameters.context.columns
    yield from (("input.required_columns", name) for name in parameters.input.required_columns)
    yield from named_columns(parameters).items()
    yield from (("context.columns.include", name) for name in selection.include)
    yield from (("context.columns.exclude", name) for name in selection.exclude)


def parameter_warnings(parameters: Parameters) -> Iterator[str]:
    """Yield settings that have no effect, or cost more than they seem to."""
    judge, cache = parameters.prompts.judge, parameters.cache
    if parameters.judge.model_fields_set and not judge.enabled:
        yield f"judge.{min(parameters.judge.model_fields_set)} has no effect: prompts.judge.enabled is false"
    if parameters.prompts.schema_auto_json_summarization.path:
        yield "prompts.schema_auto_json_summarization.path has no effect: the schema text is written without a model"
    if parameters.artifacts.logs_dir and not parameters.run.log_file:
        yield "artifacts.logs_dir has no effect: run.log_file is empty, so no log file is written"
    if cache.force or not cache.enabled:
        setting = "cache.force is true" if cache.force else "cache.enabled is false"
        yield f"{setting}: every run generates and pays for all its items again"
    if not cache.dump_failures:
        yield "cache.dump_failures is false: failed items leave no file, so every run retries all of them"
    if parameters.llm.provider == "offline":
        yield "llm.provider is offline: all answers are made up"
