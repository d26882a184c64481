"""Every mistake of a batch's files in one go, before anything is asked of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from llmbatch_assets.adapters.files.yaml_files import load_what_holds, prompt_that_holds, read_text
from llmbatch_assets.adapters.providers.credentials import missing_keys
from llmbatch_assets.adapters.providers.prices import require_prices
from llmbatch_assets.adapters.tables.readers import read_table
from llmbatch_assets.domain.column_mistakes import column_mistakes, template_mistakes
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.table import clean_columns, take_snapshot
from llmbatch_assets.domain.layout import Layout
from llmbatch_assets.domain.parameter_warnings import blank_warnings, parameter_warnings, schema_warnings
from llmbatch_assets.domain.prompt import GENERATION_NAMES, JUDGE_NAMES, PromptTemplate
from llmbatch_assets.domain.request import prompt_warnings
from llmbatch_assets.domain.schema.writing import schema_conversation
from llmbatch_assets.domain.schema_mistakes import schema_mistakes
from llmbatch_assets.errors import InputError, SchemaError
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.write_schema import schema_txt_mismatch

Value = TypeVar("Value")


@dataclass
class Found:
    """What is wrong with a batch, and what is probably not meant. ``n_items``: what a run would plan, if it can be told."""

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    n_items: int | None = None

    def trying(self, make: Callable[[], Value]) -> Value | None:
        """What ``make`` gives; None where it raises an ``InputError``, whose lines are noted."""
        try:
            return make()
        except InputError as mistake:
            self.mistakes += [told for told in _each(str(mistake)) if told not in self.mistakes]
            return None


def _each(message: str) -> list[str]:
    """The mistakes of a message that lists several: each begins with the file's name, and may go on on further lines."""
    file = message.partition(": ")[0]
    return [f"{file}: {told.strip()}" for told in f"\n{message}".split(f"\n{file}: ")[1:]] or [message]


def check_batch(batch_file: BatchFile) -> Found:
    """All mistakes of the configuration, the prompts, the schema and the table; nothing is written or called."""
    found = Found()
    batch = found.trying(batch_file.load) or found.trying(lambda: _what_holds(batch_file))
    if batch is None:
        found.warnings.append("prompts, schema and table were not looked at: the configuration says where they are")
        return found
    parameters = batch.parameters
    generation = _check_prompts(batch, found)
    _check_schema(batch, generation, found)
    _check_table(batch, found)
    found.trying(lambda: require_prices(parameters))
    missing = missing_keys(parameters, batch.root)
    found.warnings += [
        *parameter_warnings(parameters),
        *(f"{told}; no run begins that has calls to make" for told in missing),
    ]
    return found


def _what_holds(batch_file: BatchFile) -> Batch:
    """The batch without what is wrong in its configuration, so that its other files can be looked at."""
    return Batch(batch_file.root, Layout(batch_file.path.stem, load_what_holds(batch_file.path)))


def _check_prompts(batch: Batch, found: Found) -> PromptTemplate | None:
    paths, judged = batch.parameters.prompts, batch.parameters.prompts.judge.enabled
    generation = found.trying(lambda: batch.generation_prompt) or _what_holds_of(batch, paths.generation.path)
    judge = found.trying(lambda: batch.judge_prompt) or (_what_holds_of(batch, paths.judge.path) if judged else None)
    if generation:
        found.trying(lambda: generation.check(GENERATION_NAMES))
        found.warnings += [
            *prompt_warnings(generation),
            *blank_warnings(generation, batch.parameters),
            *schema_warnings(generation, batch.parameters),
        ]
    if judge:
        found.trying(lambda: judge.check(JUDGE_NAMES))
        found.warnings += blank_warnings(judge, batch.parameters)
    return generation


def _what_holds_of(batch: Batch, path: str) -> PromptTemplate | None:
    return prompt_that_holds(batch.path(path), path)


def _check_schema(batch: Batch, generation: PromptTemplate | None, found: Found) -> None:
    settings, shown = batch.parameters.llm_schema, str(batch.layout.schema_py)
    exists = batch.path(shown).is_file()
    if (not exists or settings.force_regenerate) and generation:
        found.trying(lambda: schema_conversation(batch.schema_prompt, generation, settings.task))
    if not exists:
        found.trying(lambda: _will_be_written(batch, found))
        return
    text = found.trying(lambda: read_text(batch.path(shown), SchemaError, "llm_schema.py_path"))
    mistakes = [] if settings.trust or text is None else schema_mistakes(text, shown)
    found.mistakes += mistakes
    if text is None or mistakes or found.trying(lambda: batch.schema) is None:
        return
    found.trying(batch.schema.output)
    if batch.parameters.prompts.judge.enabled:
        found.trying(batch.schema.judge)
    mismatch = found.trying(lambda: schema_txt_mismatch(batch))
    found.warnings += [mismatch] if mismatch else []


def _will_be_written(batch: Batch, found: Found) -> None:
    shown = batch.layout.schema_py
    if batch.parameters.llm.provider == "offline" or not batch.parameters.llm_schema.auto_generate:
        raise SchemaError(f"{shown} does not exist; write it, or name another file in llm_schema.py_path")
    found.warnings.append(f"{shown} does not exist: the next run has the model write it, which costs calls")


def _check_table(batch: Batch, found: Found) -> None:
    settings, parameters = batch.parameters.input, batch.parameters
    path = settings.path
    table = found.trying(lambda: read_table(batch.path(path), settings))
    columns = None if table is None else found.trying(lambda: clean_columns(table.columns, path))
    if table is None or columns is None:
        found.mistakes += template_mistakes(parameters.context)
        return
    mistakes = column_mistakes(columns, parameters)
    found.mistakes += mistakes
    # A missing column is told already, and the cells can be wrong, too.
    lenient = settings.model_copy(update={"required_columns": ()})
    snapshot = found.trying(lambda: take_snapshot(table, path, lenient))
    if snapshot is None:
        return
    found.warnings += [f"{path}: {warning}" for warning in snapshot.meta["warnings"]]
    if not mistakes and (plan := found.trying(lambda: plan_work(snapshot, parameters))):
        found.n_items = len(plan.items)
        found.warnings += [f"{path}: {warning}" for warning in plan.warnings]
