"""Paths of a batch's files, relative to the project root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from llmbatch_assets.domain.configuration.parameters import DEFAULT_BATCH, Parameters


class _InCache:
    """A path in the cache folder of a layout."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, layout: Layout, owner: type[Layout]) -> PurePosixPath:
        return layout.cache / self._name


@dataclass(frozen=True)
class Layout:
    """The paths of one batch. Every batch except the default one has subfolders named after it."""

    batch: str
    parameters: Parameters

    def _own(self, folder: str) -> PurePosixPath:
        return PurePosixPath(folder) if self.batch == DEFAULT_BATCH else PurePosixPath(folder, self.batch)

    @property
    def artifacts(self) -> PurePosixPath:
        return PurePosixPath(self.parameters.artifacts.dir or self._own("artifacts"))

    @property
    def cache(self) -> PurePosixPath:
        return PurePosixPath(self.parameters.cache.dir or self.artifacts / "cache")

    @property
    def schema_py(self) -> PurePosixPath:
        return PurePosixPath(self.parameters.llm_schema.py_path or self._own("schema") / "llm_schema.py")

    @property
    def schema_txt(self) -> PurePosixPath:
        return PurePosixPath(self.parameters.llm_schema.txt_path or self.schema_py.with_suffix(".txt"))

    @property
    def archive(self) -> PurePosixPath:
        return PurePosixPath(self.parameters.llm_schema.archive_dir or self._own("archived"))

    snapshot = _InCache("pipeline2_input.json")
    group_contexts = _InCache("pipeline3_group_contexts.json")
    work_items = _InCache("pipeline3_work_items.json")
    llm_outputs = _InCache("llm_outputs")
    llm_failures = _InCache("llm_failures")
    awaiting_judge = _InCache("awaiting_judge")
    schema_failures = _InCache("schema_failures")
    forced = _InCache("forced")
    known_outputs = _InCache("known_outputs.sqlite3")
    run_state = _InCache("run_state.json")
    claims = _InCache("claims.lock")
    ledger = _InCache("usage.jsonl")
    run_history = _InCache("run_history.jsonl")
    provenance = _InCache("provenance")
    report_charts = _InCache("report_charts.json")

    @property
    def log_file(self) -> PurePosixPath | None:
        named = PurePosixPath(self.parameters.run.log_file)
        if not named.name:
            return None
        folder = PurePosixPath(self.parameters.artifacts.logs_dir or self.artifacts / "logs")
        return folder / named if len(named.parts) == 1 else named

    def manifest(self, pipeline: int) -> PurePosixPath:
        return self.cache / f"pipeline{pipeline}_manifest.json"

    @property
    def outputs(self) -> PurePosixPath:
        return PurePosixPath(self.parameters.artifacts.outputs_dir or self.artifacts / "outputs")

    def export(self, file_format: str) -> PurePosixPath:
        configured: str = getattr(self.parameters.outputs, f"{file_format}_path")
        return PurePosixPath(configured or self.outputs / f"output.{file_format}")

    @property
    def not_exported(self) -> PurePosixPath:
        configured = self.parameters.outputs.not_exported_path
        return PurePosixPath(configured or self.outputs / "output_not_exported.csv")

    def report(self, file_format: str) -> PurePosixPath:
        configured: str = getattr(self.parameters.report, f"{file_format}_path")
        folder = self.parameters.artifacts.reports_dir or self.artifacts / "reports"
        return PurePosixPath(configured or PurePosixPath(folder) / f"report.{file_format}")

    def folders(self) -> set[PurePosixPath]:
        """Return the folders in which runs of the batch replace files."""
        exported = (self.export(one) for one in self.parameters.outputs.formats)
        reported = (self.report(one) for one in ("md", "html"))
        folders = {path.parent for path in (*exported, *reported, self.not_exported, self.schema_txt)}
        return folders | {self.cache, self.llm_outputs, self.llm_failures, self.awaiting_judge, self.provenance}
