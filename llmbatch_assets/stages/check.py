"""Checks of a batch's files before a run: ``check_batch`` collects all mistakes, ``preflight`` raises the first.

Both use the same functions, so that ``llmbatch check`` reports whatever ``llmbatch run`` would refuse.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from llmbatch_assets.adapters.files.yaml_files import load_valid_parameters, load_valid_prompt, read_text
from llmbatch_assets.adapters.providers.credentials import missing_keys
from llmbatch_assets.adapters.providers.prices import require_prices
from llmbatch_assets.adapters.providers.registry import open_client
from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.domain.export.records import Join, export_warnings
from llmbatch_assets.domain.items.context import group_template_mistakes
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.table import Snapshot, clean_columns, take_snapshot
from llmbatch_assets.domain.items.work import WorkPlan
from llmbatch_assets.domain.layout import Layout
from llmbatch_assets.domain.mistakes import (
    column_mistakes,
    parameter_warnings,
    placeholder_warnings,
    prompt_warnings,
    schema_mistakes,
    schema_warnings,
)
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.domain.prompt import GENERATION_NAMES, SCHEMA_NAMES, Message
from llmbatch_assets.domain.request import ChatRequest, checked_judge_prompt, checked_prompts
from llmbatch_assets.domain.usage import format_cost
from llmbatch_assets.errors import (
    AnswerError,
    ArtifactError,
    ConfigError,
    InputError,
    LlmBatchError,
    MissingArtifactError,
    SchemaError,
)
from llmbatch_assets.stages.artifacts import artifact_path, require_schema
from llmbatch_assets.stages.export import columns_of_export
from llmbatch_assets.stages.generate.clients import CallMeter
from llmbatch_assets.stages.plan import plan_run_quickly
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.report import columns_to_count
from llmbatch_assets.stages.runtime import new_run_id, utc_now
from llmbatch_assets.stages.write_schema import reason_to_write, schema_txt_mismatch

log = logging.getLogger(__name__)
Value = TypeVar("Value")

# The artifacts that an asset reads.
_INPUTS = {
    "work_items": ("input_snapshot",),
    "llm_outputs": ("work_items", "group_contexts"),
    "export": ("input_snapshot", "work_items"),
    "report": ("input_snapshot", "work_items", "llm_outputs", "export"),
}
# The smallest number that every provider accepts.
PING_TOKENS = 16
PING = (Message("user", "Say OK."),)


@dataclass
class CheckResult:
    """Mistakes and warnings about a batch. ``n_items`` is None if the items could not be planned."""

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    n_items: int | None = None

    def collect(self, check: Callable[[], Value]) -> Value | None:
        """Return the result of ``check``, or record the mistakes that it raises and return None."""
        try:
            return check()
        except (InputError, ArtifactError) as error:
            self.mistakes += [mistake for mistake in _split_message(str(error)) if mistake not in self.mistakes]
            return None


def _split_message(message: str) -> list[str]:
    """Split a message into mistakes. Each begins with the file's name and may span several lines."""
    file = message.partition(": ")[0]
    return [f"{file}: {mistake.strip()}" for mistake in f"\n{message}".split(f"\n{file}: ")[1:]] or [message]


def check_batch(batch_file: BatchFile) -> CheckResult:
    """Check configuration, prompts, schema and table without writing or calling anything."""
    found = CheckResult()
    batch = found.collect(batch_file.load) or found.collect(lambda: _without_invalid_keys(batch_file))
    if batch is None:
        found.warnings.append("prompts, schema and table were not checked: the configuration says where they are")
        return found
    _collect_from_prompts(batch, found)
    schema_is_usable = _collect_from_schema(batch, found)
    snapshot = _collect_from_table(batch, found)
    if snapshot and schema_is_usable:
        found.warnings += found.collect(lambda: _check_export(batch, snapshot)) or []
        found.collect(lambda: columns_to_count(batch, snapshot.columns))
    found.collect(lambda: require_prices(batch.parameters))
    missing = missing_keys(batch.parameters, batch.root)
    found.warnings += parameter_warnings(batch.parameters)
    found.warnings += [f"{problem}; runs that need the model will not start" for problem in missing]
    return found


def _without_invalid_keys(batch_file: BatchFile) -> Batch:
    """Load the rest of the batch, so that its other files can be checked."""
    return Batch(batch_file.root, Layout(batch_file.path.stem, load_valid_parameters(batch_file.path)))


def _collect_from_prompts(batch: Batch, found: CheckResult) -> None:
    parameters, paths = batch.parameters, batch.parameters.prompts
    generation = found.collect(lambda: batch.generation_prompt) or load_valid_prompt(batch.root, paths.generation.path)
    if generation:
        found.collect(lambda: generation.check(GENERATION_NAMES))
        found.warnings += [*prompt_warnings(generation), *placeholder_warnings(generation, parameters)]
        found.warnings += schema_warnings(generation, parameters)
    if not paths.judge.enabled:
        return
    judge = found.collect(lambda: batch.judge_prompt) or load_valid_prompt(batch.root, paths.judge.path)
    if judge:
        found.collect(lambda: checked_judge_prompt(judge))
        found.warnings += placeholder_warnings(judge, parameters)


def _collect_from_schema(batch: Batch, found: CheckResult) -> bool:
    """Collect mistakes of the schema module and its text. Returns whether exports can be checked with it."""
    settings, path = batch.parameters.llm_schema, batch.layout.schema_py
    exists = batch.path(path).is_file()
    if not exists or settings.force_regenerate:
        found.collect(lambda: batch.schema_prompt.check(SCHEMA_NAMES))
    due = found.collect(lambda: reason_to_write(batch))
    if not exists:
        if due:
            found.warnings.append(f"{path} does not exist: the model will write it in the next run, which costs calls")
        return False
    text = found.collect(lambda: read_text(batch.path(path), SchemaError, "llm_schema.py_path"))
    mistakes = [] if settings.trust or text is None else schema_mistakes(text, str(path))
    found.mistakes += mistakes
    if text is None or mistakes or found.collect(lambda: batch.schema) is None:
        return False
    needed = [batch.schema.output, *([batch.schema.judge] if batch.parameters.prompts.judge.enabled else [])]
    models = [found.collect(model) for model in needed]
    mismatch = found.collect(lambda: schema_txt_mismatch(batch))
    found.warnings += [mismatch] if mismatch else []
    return None not in models and not due


def _collect_from_table(batch: Batch, found: CheckResult) -> Snapshot | None:
    parameters, settings = batch.parameters, batch.parameters.input
    table = found.collect(lambda: read_table(batch.path(settings.path), settings))
    columns = None if table is None else found.collect(lambda: clean_columns(table.columns, settings.path))
    if table is None or columns is None:
        found.mistakes += group_template_mistakes(parameters.context)
        return None
    mistakes = column_mistakes(columns, parameters)
    found.mistakes += mistakes
    # Missing columns are reported above; the cells can have mistakes, too.
    lenient = settings.model_copy(update={"required_columns": ()})
    snapshot = found.collect(lambda: take_snapshot(table, settings.path, lenient))
    if snapshot is None:
        return None
    plan = None if mistakes else found.collect(lambda: plan_work(snapshot, parameters))
    found.n_items = len(plan.items) if plan else None
    found.warnings += _table_warnings(batch, snapshot, plan)
    return snapshot


def _table_warnings(batch: Batch, snapshot: Snapshot, plan: WorkPlan | None) -> list[str]:
    warnings = [*snapshot.meta["warnings"], *(plan.warnings if plan else ())]
    return [f"{batch.parameters.input.path}: {warning}" for warning in warnings]


def _check_export(batch: Batch, snapshot: Snapshot) -> list[str]:
    """Raise ``ConfigError`` for an ``outputs`` block that fits neither schema nor table. Returns warnings."""
    columns_of_export(batch, Join.of(snapshot, batch.parameters))
    return export_warnings(batch.parameters)


def preflight(batch: Batch, assets: Sequence[str], *, force_schema: bool = False) -> None:
    """Raise the ``InputError`` that a run of these assets would end in. Warnings are logged; nothing is written."""
    schema_is_due = "llm_schema_py" in assets and bool(reason_to_write(batch, force=force_schema))
    _check_contracts(batch, assets, schema_is_due=schema_is_due)
    if {"llm_schema_py", "llm_outputs"} & set(assets):
        require_prices(batch.parameters)
    if "llm_outputs" in assets:
        _log_warnings(prompt_warnings(batch.generation_prompt))
        if "llm_schema_txt" not in assets and (mismatch := schema_txt_mismatch(batch)):
            _log_warnings([mismatch])
    if "input_snapshot" in assets:
        snapshot = batch.read_snapshot()
        _log_warnings(_table_warnings(batch, snapshot, plan_work(snapshot, batch.parameters)))
        if "export" in assets and not schema_is_due:
            _log_warnings(_check_export(batch, snapshot))
        if "report" in assets and not schema_is_due:
            columns_to_count(batch, snapshot.columns)
    _require_inputs(batch, assets)


def _log_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        log.warning("%s", warning)


def _check_contracts(batch: Batch, assets: Sequence[str], *, schema_is_due: bool) -> None:
    needs_prompts = bool({"llm_outputs", "export", "report"} & set(assets))
    if schema_is_due:
        # An existing module is about to be replaced, so only the prompts matter.
        if needs_prompts:
            checked_prompts(batch.generation_prompt, batch.judge_prompt)
        return
    if needs_prompts or "llm_schema_txt" in assets:
        require_schema(batch)
    if needs_prompts:
        _ = batch.conversations
    elif {"llm_schema_py", "llm_schema_txt"} & set(assets):
        batch.check_schema()


def _require_inputs(batch: Batch, assets: Sequence[str]) -> None:
    needed = [(asset, upstream) for asset in assets for upstream in _INPUTS.get(asset, ()) if upstream not in assets]
    for asset, upstream in needed:
        path = artifact_path(batch, upstream)
        if not path.is_file():
            raise MissingArtifactError(
                f"{asset} needs {batch.shown(path)}, which does not exist; "
                f"create it with: {batch.command} --select {upstream}"
            )


def require_keys(batch: Batch, assets: Sequence[str], selection: Selection, forced: Collection[str]) -> None:
    """Raise ``ConfigError`` if a run of these assets would call a model and an API key is not set."""
    missing = missing_keys(batch.parameters, batch.root)
    if missing and _makes_calls(batch, assets, selection, forced):
        raise ConfigError("; ".join(missing))


def _makes_calls(batch: Batch, assets: Sequence[str], selection: Selection, forced: Collection[str]) -> bool:
    if "llm_schema_py" in assets and reason_to_write(batch, force="llm_schema_py" in forced):
        return True
    if "llm_outputs" not in assets:
        return False
    plan = plan_run_quickly(batch, selection, force="llm_outputs" in forced, makes_items="work_items" in assets)
    return plan.estimate.calls.high > 0


class PingResult(NamedTuple):
    answered: bool
    message: str


def ping(batch: Batch) -> Iterator[PingResult]:
    """Make one minimal call to each model: generation, and the judge if it differs. The ledger records them."""
    parameters = batch.parameters
    yield _ping_model(batch, parameters.llm)
    if parameters.prompts.judge.enabled and not parameters.judge_shares_server():
        yield _ping_model(batch, parameters.judge_llm())


def _ping_model(batch: Batch, llm: Llm) -> PingResult:
    where = f" at {llm.endpoint}" if llm.provider == "openai" else f" ({llm.provider})"
    meter = CallMeter(open_client, batch, new_run_id(), utc_now)
    try:
        asyncio.run(_call(meter, llm.model_copy(update={"max_output_tokens": PING_TOKENS})))
    except AnswerError:
        # The token limit can cut the answer off.
        pass
    except LlmBatchError as error:
        return PingResult(False, f"ping: {llm.model_name}{where} does not answer: {error}")
    usage = meter.total
    tokens = f"{usage.input_tokens} input and {usage.output_tokens} output tokens"
    cost = format_cost(usage.known_cost_usd, usage.n_unknown_cost)
    return PingResult(True, f"ping: {llm.model_name}{where} answers ({tokens}, {cost})")


async def _call(meter: CallMeter, llm: Llm) -> None:
    async with meter.client(llm, asyncio.Event()) as client:
        await client.complete(ChatRequest("generate", PING, None))
