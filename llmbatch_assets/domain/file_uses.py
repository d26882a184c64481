"""The files that a batch reads and writes, with the configuration keys that name them, and messages about conflicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from llmbatch_assets.domain.layout import Layout

# A large log file is rotated; this many old ones are kept.
OLD_LOGS = 3


class FileUse(NamedTuple):
    """A file or folder of a batch: the configuration key that names it, its path, and what it is."""

    key: str
    path: PurePosixPath
    what: str
    is_written: bool = True

    @property
    def shown(self) -> str:
        return f"{self.what} ({self.key})" if self.key else self.what

    def is_named_in(self, layout: Layout) -> bool:
        """Return whether the configuration names the path. Otherwise it is a default."""
        block, _, key = self.key.partition(".")
        return bool(getattr(getattr(layout.parameters, block), key))


def user_files(layout: Layout, config: PurePosixPath) -> Iterator[FileUse]:
    """Yield the files that runs read and never write."""
    parameters, prompts = layout.parameters, layout.parameters.prompts
    yield FileUse("", config, "the configuration", is_written=False)
    yield FileUse("input.path", PurePosixPath(parameters.input.path), "the input table", is_written=False)
    named = {"generation": "the generation prompt", "schema_auto_py_generation": "the schema prompt"}
    if prompts.judge.enabled:
        named["judge"] = "the judge's prompt"
    for name, what in named.items():
        yield FileUse(f"prompts.{name}.path", PurePosixPath(getattr(prompts, name).path), what, is_written=False)
    yield FileUse("", PurePosixPath("credentials.yaml"), "the file with the API keys", is_written=False)


def schema_module(layout: Layout) -> FileUse:
    """Return the schema module, which the user or the model writes."""
    return FileUse("llm_schema.py_path", layout.schema_py, "the schema module")


def named_files(layout: Layout) -> Iterator[FileUse]:
    """Yield the files that runs write at paths of their own."""
    outputs, report = layout.parameters.outputs, layout.parameters.report
    yield FileUse("llm_schema.txt_path", layout.schema_txt, "the schema text")
    for name in dict.fromkeys(outputs.formats):
        path = layout.export(name)
        yield FileUse(f"outputs.{name}_path", path, f"the {name} export")
        yield FileUse(f"outputs.{name}_path", earlier(path), f"the place where the previous {name} export is kept")
    yield FileUse("outputs.not_exported_path", layout.not_exported, "the list of items that were not exported")
    if report.enabled:
        yield FileUse("report.md_path", layout.report("md"), "the Markdown report")
    if report.enabled and report.write_html:
        yield FileUse("report.html_path", layout.report("html"), "the HTML report")
    if layout.log_file:
        yield FileUse("run.log_file", layout.log_file, "the log file")
        for number in range(1, OLD_LOGS + 1):
            old = layout.log_file.with_name(f"{layout.log_file.name}.{number}")
            yield FileUse("run.log_file", old, "the place where an old log file is kept")


def earlier(export: PurePosixPath) -> PurePosixPath:
    """Return the path under which an export is kept when an empty or made-up one replaces it."""
    return export.with_name(f"{export.stem}_earlier{export.suffix}")


def artifact_files(layout: Layout) -> Iterator[FileUse]:
    """Yield the artifacts, each of which has a fixed name in the cache folder."""
    stored = (layout.snapshot, layout.group_contexts, layout.work_items, layout.claims, layout.report_charts)
    for path in (
        *stored,
        layout.known_outputs,
        layout.run_state,
        *(layout.manifest(number) for number in (0, 4, 5, 6)),
    ):
        yield FileUse("cache.dir", path, "an artifact")
    yield FileUse("cache.dir", layout.ledger, "the call log")
    yield FileUse("cache.dir", layout.run_history, "the run history")


def artifact_folders(layout: Layout) -> Iterator[FileUse]:
    """Yield the folders in which every file is an artifact."""
    outputs = (layout.llm_outputs, layout.awaiting_judge, layout.forced)
    for path in (*outputs, layout.llm_failures, layout.schema_failures, layout.provenance):
        yield FileUse("cache.dir", path, "a folder of artifacts")
    yield FileUse("", PurePosixPath("dagster_home"), "the folder of Dagster's own files")


def artifact_roots(layout: Layout) -> Iterator[FileUse]:
    """Yield the folder for artifacts and the cache folder."""
    yield FileUse("artifacts.dir", layout.artifacts, "the folder for artifacts")
    yield FileUse("cache.dir", layout.cache, "the cache folder")


def named_folders(layout: Layout) -> Iterator[FileUse]:
    """Yield the folders that the configuration can name."""
    artifacts = layout.parameters.artifacts
    yield from artifact_roots(layout)
    yield FileUse("llm_schema.archive_dir", layout.archive, "the folder for replaced schema files")
    for name in ("outputs_dir", "reports_dir", "logs_dir"):
        if folder := getattr(artifacts, name):
            yield FileUse(f"artifacts.{name}", PurePosixPath(folder), "a folder")


def same_file(use: FileUse, other: FileUse) -> str:
    """Return the message that a file written by runs is also another file of the batch."""
    both_written = use.is_written and other.is_written
    effect = "; give each its own path" if both_written else ", which a run would overwrite; name another file"
    return f"{use.key}: {_is_same(use, other)} {other.shown}{effect}"


def also_a_folder(use: FileUse, inner: FileUse) -> str:
    """Return the message that a file has the path of a folder, which holds another file of the batch."""
    holds = inner.shown if inner.path == use.path else f"the folder of {inner.path}, {inner.shown}"
    return f"{use.key}: {use.path} is also {holds}; name another file"


def inside_artifacts(use: FileUse, folder: FileUse) -> str:
    """Return the message that a file that the configuration names is in a folder of artifacts."""
    return f"{use.key}: {use.path} is in {folder.path}, {folder.what}; name a file elsewhere"


def beside_configurations(use: FileUse, config: PurePosixPath) -> str:
    """Return the message that a file would be read as the configuration of a batch."""
    return f"{use.key}: {use.path} would be read as the configuration of a batch, as {config} is; name a file elsewhere"


def not_a_file(use: FileUse) -> str:
    """Return the message that a folder exists where a file is to be written."""
    return f"{use.key}: {use.path} is a folder; name a file"


def not_a_folder(use: FileUse, file: str) -> str:
    """Return the message that a file exists where the path needs a folder."""
    return f"{use.key}: {use.path} cannot be written, because {file} is a file, not a folder; name another path"


def shared(use: FileUse, other: FileUse, config: str, *, is_inside: bool = False) -> str:
    """Return the message that another configuration names the same path for something that runs write."""
    same = _is_same(use, other)
    if is_inside:
        same = f"{use.path} and {other.path} are nested folders; the latter is"
    owner = f"{other.shown} of {config}" if other.key else f"{other.what} {config}"
    return f"{use.key}: {same} {owner}. Two batches must not write the same files: name another path in one of them"


def _is_same(use: FileUse, other: FileUse) -> str:
    same = "is also" if use.path == other.path else f"is the same as {other.path},"
    return f"{use.path} {same}"
