"""All mistakes in a batch's files at once, for ``llmbatch check`` and for everything that starts a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from llmbatch_assets.adapters.files.file_version import file_version
from llmbatch_assets.adapters.files.yaml_files import load_valid_parameters, load_valid_prompt, read_text
from llmbatch_assets.adapters.providers.credentials import missing_keys
from llmbatch_assets.adapters.providers.prices import require_prices
from llmbatch_assets.adapters.store.kept_values import KEPT
from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.export.columns import export_columns
from llmbatch_assets.domain.export.limits import require_columns_fit, size_warnings
from llmbatch_assets.domain.export.records import Join, export_warnings
from llmbatch_assets.domain.items.context import group_template_mistakes
from llmbatch_assets.domain.items.prompt_columns import names_columns, prompt_mistakes
from llmbatch_assets.domain.items.table import Snapshot, clean_columns, take_snapshot
from llmbatch_assets.domain.items.work import WorkItem, WorkPlan
from llmbatch_assets.domain.layout import Layout
from llmbatch_assets.domain.mistakes import (
    column_mistakes,
    parameter_warnings,
)
from llmbatch_assets.domain.placeholders import SCHEMA_NAMES
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.prompt_warnings import prompt_warnings
from llmbatch_assets.domain.schema.grammar import schema_mistakes
from llmbatch_assets.errors import ArtifactError, InputError, MissingArtifactError, SchemaError
from llmbatch_assets.stages.artifacts import (
    artifact_path,
    prompt_gaps,
    require_columns,
    require_schema,
    stored_work,
    work_of,
)
from llmbatch_assets.stages.own_files import file_problems
from llmbatch_assets.stages.project import Batch, BatchFile, table_kind
from llmbatch_assets.stages.publish.export import columns_of_export
from llmbatch_assets.stages.publish.report import columns_to_count
from llmbatch_assets.stages.write_schema import reason_to_write, schema_txt_mismatch

Value = TypeVar("Value")

# The assets of a whole run, with the artifacts that each reads.
_INPUTS = {
    "llm_schema_py": (),
    "llm_schema_txt": (),
    "input_snapshot": (),
    "group_contexts": (),
    "work_items": ("input_snapshot",),
    "llm_outputs": ("work_items", "group_contexts"),
    "export": ("input_snapshot", "work_items"),
    "report": ("input_snapshot", "work_items", "llm_outputs", "export"),
}
EVERYTHING = frozenset(_INPUTS)
_KEY = re.compile(rf"(?:{'|'.join(Parameters.model_fields)})(?:\.\w+)+[: ]")


class TableCheck(NamedTuple):
    """The columns of a table without mistakes, and the warnings that depend on it, on the configuration and the schema."""

    columns: list[str]
    warnings: list[str]


@dataclass
class CheckResult:
    """Mistakes and warnings about a batch.

    A run repeats the warnings, but not the ``remarks``, which are about settings rather than about files. ``work`` is None
    if the items could not be planned, and ``table`` if it has mistakes.
    """

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    work: WorkPlan | None = None
    table: TableCheck | None = None

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


def check_batch(
    batch_file: BatchFile,
    assets: Collection[str] = EVERYTHING,
    forced: Collection[str] = (),
    known_table: TableCheck | None = None,
) -> CheckResult:
    """Check what a run of these assets reads, without writing anything or making calls. The run regenerates ``forced``.

    The table is not read if its result is known.
    """
    found = CheckResult()
    has_valid_keys = found.collect(batch_file.load_alone) is not None
    loaded = found.collect(batch_file.load) if has_valid_keys else None
    batch = loaded or found.collect(lambda: _without_invalid_keys(batch_file))
    if batch is None:
        found.remarks.append("prompts, schema and table were not checked, because the configuration names their paths")
        return found
    _Check(batch, found, frozenset(assets), frozenset(forced), known_table).check()
    found.mistakes = [_in_file(batch_file, mistake) for mistake in found.mistakes]
    if not has_valid_keys:
        # Other warnings could be wrong, because invalid keys were replaced by their defaults.
        return found
    found.remarks += parameter_warnings(batch.parameters)
    missing = missing_keys(batch.parameters, batch.root)
    found.remarks += [f"{problem}; runs that need the model will not start" for problem in missing]
    return found


def _in_file(batch_file: BatchFile, mistake: str) -> str:
    """Name the configuration in a mistake that begins with one of its keys."""
    return f"{batch_file.path}: {mistake}" if _KEY.match(mistake) else mistake


def _without_invalid_keys(batch_file: BatchFile) -> Batch:
    """Load the rest of the batch, so that its other files can be checked."""
    return Batch(batch_file.root, Layout(batch_file.path.stem, load_valid_parameters(batch_file.path)))


@dataclass(frozen=True)
class _Check:
    """The check of one batch for a run of some assets."""

    batch: Batch
    found: CheckResult
    assets: frozenset[str]
    forced: frozenset[str]
    known_table: TableCheck | None

    def check(self) -> None:
        batch, found = self.batch, self.found
        needs_prompts = self._runs("llm_outputs", "export", "report")
        prompts = self._read_prompts() if needs_prompts else (None, None)
        schema_is_usable = self._check_schema()
        columns = self._check_table(schema_is_usable) if self._runs("input_snapshot") else None
        self._check_placeholders(*prompts, columns)
        if columns and schema_is_usable and self._runs("report"):
            found.collect(lambda: columns_to_count(batch, columns))
        if self._runs("llm_schema_py", "llm_outputs"):
            found.collect(lambda: require_prices(batch.parameters))
        self._check_own_files()
        self._check_artifacts()
        self._check_stored_items(*prompts)

    def _check_own_files(self) -> None:
        """Collect user files that the run would overwrite, unless their path is already a mistake."""
        for problem in file_problems(self.batch, self.assets):
            key = problem.partition(": ")[0]
            if not any(f" {key}: " in mistake for mistake in self.found.mistakes):
                self.found.mistakes.append(problem)

    def _runs(self, *assets: str) -> bool:
        return not self.assets.isdisjoint(assets)

    def _read_prompts(self) -> tuple[PromptTemplate | None, PromptTemplate | None]:
        """Return the generation and the judge's prompt as far as they can be read."""
        batch, found, paths = self.batch, self.found, self.batch.parameters.prompts
        generation = found.collect(lambda: batch.generation_prompt)
        generation = generation or load_valid_prompt(batch.root, paths.generation.path)
        if not paths.judge.enabled:
            return generation, None
        judge = found.collect(lambda: batch.judge_prompt)
        return generation, judge or load_valid_prompt(batch.root, paths.judge.path)

    def _check_placeholders(
        self, generation: PromptTemplate | None, judge: PromptTemplate | None, columns: Sequence[str] | None
    ) -> None:
        """Collect mistakes and warnings about placeholders. Without a table, any name may be that of a column."""
        if generation is None:
            return
        if columns is not None:
            self.found.mistakes += prompt_mistakes(generation, judge, columns, self.batch.parameters)
        self.found.warnings += prompt_warnings(generation, judge, self.batch.parameters, columns or ())

    def _check_stored_items(self, generation: PromptTemplate | None, judge: PromptTemplate | None) -> None:
        """Collect a mistake if the run uses stored items that lack a column which the prompts name."""
        batch, found = self.batch, self.found
        if found.mistakes or generation is None or "work_items" in self.assets or not self._runs("llm_outputs"):
            return
        if names_columns(generation, judge):
            found.collect(lambda: require_columns(batch, stored_work(batch).items))

    def _check_schema(self) -> bool:
        """Collect mistakes of the schema module and its text. Returns whether exports can be checked with it."""
        batch, found, path = self.batch, self.found, self.batch.layout.schema_py
        exists, due = batch.path(path).is_file(), self._schema_is_due()
        if due:
            # An existing module is about to be replaced, so its mistakes do not matter.
            state = (
                f"{path} does not exist: the model will write it" if not exists else f"the model will replace {path}"
            )
            found.remarks.append(f"{state}, which costs calls{f' ({due})' if exists else ''}")
            return False
        if not exists:
            if not self._runs("llm_schema_py"):
                found.collect(lambda: require_schema(batch))
            return False
        if not self._runs("llm_schema_py", "llm_schema_txt", "llm_outputs", "export", "report"):
            return False
        text = found.collect(lambda: read_text(batch.path(path), SchemaError, "llm_schema.py_path"))
        mistakes = [] if batch.parameters.llm_schema.trust or text is None else schema_mistakes(text, str(path))
        found.mistakes += mistakes
        if text is None or mistakes or found.collect(lambda: batch.schema) is None:
            return False
        self._check_schema_text()
        needed = [batch.schema.output, *([batch.schema.judge] if batch.parameters.prompts.judge.enabled else [])]
        return None not in [found.collect(model) for model in needed]

    def _schema_is_due(self) -> str:
        """Return why the run lets the model write the schema module; "" if it does not."""
        if not self._runs("llm_schema_py"):
            return ""
        batch, settings = self.batch, self.batch.parameters.llm_schema
        if batch.path(batch.layout.schema_py).is_dir():
            self.found.mistakes.append(f"{batch.layout.schema_py} is a folder; name a file in llm_schema.py_path")
            return ""
        force = "llm_schema_py" in self.forced
        if force or settings.force_regenerate or not batch.path(batch.layout.schema_py).is_file():
            self.found.collect(lambda: batch.schema_prompt.check(SCHEMA_NAMES))
        reason = self.found.collect(lambda: reason_to_write(batch, force=force))
        path = str(batch.layout.schema_py)
        is_known = reason is not None or batch.path(path).is_file() or any(path in one for one in self.found.mistakes)
        if not is_known:
            self.found.mistakes.append(
                f"{path} does not exist; write it, or correct the prompts so that the model can write it"
            )
        return reason or ""

    def _check_schema_text(self) -> None:
        if "llm_schema_txt" in self.forced or not self._runs("llm_schema_txt", "llm_outputs"):
            return
        if mismatch := self.found.collect(lambda: schema_txt_mismatch(self.batch)):
            rewrite = f"Rewrite the text with: {self.batch.command} --select llm_schema_txt"
            effect = "The run archives and rewrites the text" if self._runs("llm_schema_txt") else rewrite
            self.found.warnings.append(f"{mismatch}. Prompts use the module. {effect}")

    def _check_table(self, schema_is_usable: bool) -> Sequence[str] | None:
        """Collect mistakes and warnings of the table and of its export. Returns the columns, as far as they can be read."""
        batch, found, n_mistakes = self.batch, self.found, len(self.found.mistakes)
        if known := self.known_table:
            found.table = known
            found.warnings += [*known.warnings, *self._gaps(known.columns, stored_work(batch).items)]
            return known.columns
        columns, snapshot = self._read_table()
        if snapshot is None:
            return columns
        # The warnings about the prompts change with these.
        gaps = self._gaps(snapshot.columns, found.work.items) if found.work else []
        warnings = [*snapshot.meta["warnings"], *(found.work.warnings if found.work else ())]
        warnings = [f"{batch.parameters.input.path}: {warning}" for warning in warnings]
        if self._runs("export"):
            check = _check_export if schema_is_usable else _check_export_without_schema
            warnings += found.collect(lambda: check(batch, snapshot)) or []
        found.warnings += warnings
        if len(found.mistakes) == n_mistakes:
            found.table = TableCheck(snapshot.columns, [warning for warning in warnings if warning not in gaps])
        return columns

    def _gaps(self, columns: Sequence[str], items: Sequence[WorkItem]) -> list[str]:
        """Return the warnings about columns that the prompts name and that are empty in some rows."""
        return [f"{self.batch.parameters.input.path}: {gap}" for gap in prompt_gaps(self.batch, columns, items)]

    def _read_table(self) -> tuple[Sequence[str] | None, Snapshot | None]:
        """Collect mistakes of the table. Returns its columns and its content, as far as they can be read."""
        batch, found, parameters = self.batch, self.found, self.batch.parameters
        settings = parameters.input
        path = batch.path(settings.path)
        version = file_version(path)
        table = found.collect(lambda: read_table(path, settings))
        columns = None if table is None else found.collect(lambda: clean_columns(table.columns, settings.path))
        if table is None or columns is None:
            found.mistakes += group_template_mistakes(parameters.context)
            return None, None
        mistakes = column_mistakes(columns, parameters)
        found.mistakes += mistakes
        # Missing columns are reported above; the cells can have mistakes, too.
        lenient = settings.model_copy(update={"required_columns": ()})
        snapshot = found.collect(lambda: take_snapshot(table, settings.path, lenient))
        if snapshot is None:
            return columns, None
        # For the run that follows. The lenient snapshot differs only where columns are missing, which is a mistake.
        KEPT.keep(path, table_kind(settings), version, snapshot)
        found.work = None if mistakes else found.collect(lambda: work_of(batch, snapshot))
        return columns, snapshot

    def _check_artifacts(self) -> None:
        """Collect the artifacts that the run reads but does not make, and that do not exist."""
        for asset in sorted(self.assets):
            for upstream in _INPUTS[asset]:
                path = artifact_path(self.batch, upstream)
                if upstream not in self.assets and not path.is_file():
                    missing = MissingArtifactError(
                        f"{asset} needs {self.batch.shown(path)}, which does not exist; "
                        f"create it with: {self.batch.command} --select {upstream}"
                    )
                    self.found.mistakes.append(str(missing))


def _check_export(batch: Batch, snapshot: Snapshot) -> list[str]:
    """Raise ``ConfigError`` for an ``outputs`` block that fits neither schema nor table. Returns warnings."""
    join, formats = Join.of(snapshot, batch.parameters), batch.parameters.outputs.formats
    columns = columns_of_export(batch, join)
    require_columns_fit(formats, columns)
    return [*export_warnings(batch.parameters), *size_warnings(formats, columns, join)]


def _check_export_without_schema(batch: Batch, snapshot: Snapshot) -> list[str]:
    """Raise ``ConfigError`` if the columns of the table alone are too many for a format. Returns warnings."""
    join, formats = Join.of(snapshot, batch.parameters), batch.parameters.outputs.formats
    columns = export_columns(join.input_columns, ())
    require_columns_fit(formats, columns)
    return size_warnings(formats, columns, join)
