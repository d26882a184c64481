"""Files that are up to date are not written again, and after any change they are those of a full rebuild."""

import importlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llmbatch_assets.adapters.files.atomic import json_bytes, write_json, write_json_if_changed
from llmbatch_assets.adapters.store.run_records import keep_provenance
from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import work_items_of
from llmbatch_assets.stages import artifacts
from llmbatch_assets.stages.artifacts import StoredSnapshot, artifact_path, batch_outputs
from llmbatch_assets.stages.publish import fingerprints
from llmbatch_assets.stages.publish.export import current_export, write_exports
from llmbatch_assets.stages.publish.export_check import export_problems
from llmbatch_assets.stages.publish.report import current_report, write_report
from llmbatch_assets_tests.project import GENERATION, ROWS, SCHEMA, Project, make_project, settings
from llmbatch_assets_tests.stages.publish.test_export import batch_of, generate

SHARED_FIELDS = """from pydantic import BaseModel, computed_field


class Fields(BaseModel):
    @computed_field
    @property
    def loud(self) -> str:
        return self.answer.upper()
"""
MANIFESTS = ("artifacts/cache/pipeline5_manifest.json", "artifacts/cache/pipeline6_manifest.json")


def prepare(project: Project) -> None:
    """Write the snapshot and the work items of the table."""
    batch = batch_of(project)
    snapshot = batch.read_snapshot()
    items = work_items_of(plan_work(snapshot, batch.parameters), batch.parameters, "pipeline3_group_contexts.json")
    write_json_if_changed(artifact_path(batch, "input_snapshot"), snapshot)
    write_json_if_changed(artifact_path(batch, "work_items"), items)


def publish(project: Project) -> list[str]:
    """Do what the assets do. Returns the names of those that were written."""
    batch, written = batch_of(project), []
    outputs, snapshot = batch_outputs(batch), StoredSnapshot(batch)
    if (export := current_export(batch, outputs)) is None:
        export = write_exports(batch, outputs, snapshot.load())
        write_json(artifact_path(batch, "export"), export)
        written.append("export")
    if current_report(batch, outputs) is None:
        write_json(artifact_path(batch, "report"), write_report(batch, outputs, export, snapshot.load()).manifest)
        written.append("report")
    return written


def states_of_files(project: Project) -> dict[str, tuple[int, int]]:
    """The inode and modification time of each file."""
    found = {path: path.stat() for path in project.root.rglob("*") if path.is_file()}
    return {str(path): (status.st_ino, status.st_mtime_ns) for path, status in found.items()}


@pytest.fixture
def published(tmp_path: Path) -> Project:
    """A project whose five items have outputs, with export and report."""
    project = make_project(tmp_path / "village")
    prepare(project)
    generate(project)
    assert publish(project) == ["export", "report"]
    return project


def test_nothing_is_written_and_no_output_read_if_nothing_changed(published: Project, opened: list[str]) -> None:
    before = states_of_files(published)
    opened.clear()
    assert publish(published) == []
    assert states_of_files(published) == before
    assert opened == []


def test_nothing_heavy_is_imported_if_nothing_changed(published: Project) -> None:
    # The drawings and tables of the last publication are known.
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from llmbatch_assets.stages.artifacts import batch_outputs\n"
        "from llmbatch_assets.stages.project import BatchFile\n"
        "from llmbatch_assets.stages.publish.export import current_export\n"
        "from llmbatch_assets.stages.publish.report import charts_as_markdown, current_report\n"
        f"batch = BatchFile(Path({str(published.config)!r})).load()\n"
        "outputs = batch_outputs(batch)\n"
        "assert current_export(batch, outputs)\n"
        "assert '](data:image/svg+xml' in charts_as_markdown(batch, current_report(batch, outputs))\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert not {"matplotlib", "numpy", "jinja2", "pyarrow", "pandas", "xlsxwriter", "dagster"} & set(
        ended.stdout.split()
    )


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("artifacts/outputs/output.psv", ["export"]),
        ("artifacts/outputs/output_not_exported.csv", ["export"]),
        ("artifacts/reports/report.html", ["report"]),
        ("artifacts/cache/report_charts.json", ["report"]),
        ("artifacts/cache/pipeline5_manifest.json", ["export"]),
    ],
)
@pytest.mark.parametrize("is_removed", [True, False], ids=["missing", "changed"])
def test_a_file_that_is_missing_or_changed_is_written_again(
    published: Project, name: str, written: list[str], is_removed: bool
) -> None:
    path = published.path(name)
    before = path.read_bytes()
    if is_removed:
        path.unlink()
    else:
        # As long as it was.
        path.write_bytes(before[:-5] + b"#####")
    assert publish(published) == written
    if "manifest" not in name:
        assert path.read_bytes() == before
    assert publish(published) == []


def test_a_report_shows_the_latest_totals(published: Project) -> None:
    ledger = published.path("artifacts/cache/usage.jsonl")
    line = json.loads(ledger.read_text().splitlines()[0])
    with ledger.open("a") as file:
        file.write(json.dumps({**line, "run_id": "another", "cost_usd": 12.5}) + "\n")
    assert publish(published) == ["report"]
    assert "12.5" in published.path("artifacts/reports/report.md").read_text(encoding="utf-8")


def test_each_item_is_looked_for_once_under_each_of_the_earlier_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "village")
    prepare(project)
    for number in range(4):
        project.prompt("generation", {**GENERATION, "user": f"{number}: {{context}}"})
        generate(project, limit=2)
        batch = batch_of(project)
        keep_provenance(batch.path(batch.layout.provenance), batch.provenance())
    current = batch_of(project).source.identity.sha
    looked_for = Counter[tuple[bool, str]]()
    cache_id = BatchIdentity.cache_id

    def counted(self: BatchIdentity, item_id: str) -> str:
        looked_for[self.sha == current, item_id] += 1
        return cache_id(self, item_id)

    monkeypatch.setattr(BatchIdentity, "cache_id", counted)
    artifacts._kept_older_outputs.cache_clear()
    assert publish(project) == ["export", "report"]
    assert publish(project) == []
    export_problems(batch_of(project))
    per_item = [max(n for (of_current, _), n in looked_for.items() if of_current is kind) for kind in (False, True)]
    # Two items have outputs of the current settings.
    assert len(looked_for) == len(ROWS) + len(ROWS) - 2
    assert per_item[0] == 3
    assert per_item[1] <= 20


def test_a_file_that_a_trusted_schema_imports_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "fields_of_answers.py"
    module.write_text(SHARED_FIELDS)
    project = make_project(tmp_path / "village", llm_schema={"trust": True})
    source = SCHEMA.replace("class LLMOutput(BaseModel)", "class LLMOutput(fields_of_answers.Fields)")
    project.write("schema/llm_schema.py", f"import fields_of_answers\n{source}")
    prepare(project)
    generate(project)
    assert publish(project) == ["export", "report"]
    assert publish(project) == []
    module.write_text(SHARED_FIELDS.replace("loud", "in_capitals"))
    for name in [name for name in sys.modules if name.startswith(("fields_of_answers", "llmbatch_trusted_schema"))]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    assert publish(project) == ["export", "report"]
    assert "in_capitals" in project.path("artifacts/outputs/output.csv").read_text(encoding="utf-8")


def test_other_code_writes_everything_again(published: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "code_sha", lambda: "another")
    assert publish(published) == ["export", "report"]


def test_without_a_stored_table_nothing_is_up_to_date(published: Project) -> None:
    batch = batch_of(published)
    artifact_path(batch, "input_snapshot").unlink()
    assert current_export(batch, batch_outputs(batch)) is None
    assert current_report(batch, batch_outputs(batch)) is None


def test_the_command_writes_unchanged_files_only_if_forced(project_with: Callable[..., Project]) -> None:
    project = project_with()
    names = ["artifacts/outputs/output.csv", "artifacts/reports/report.html", *MANIFESTS]

    def written_by(*arguments: str) -> list[str]:
        before = {name: project.path(name).stat().st_mtime_ns for name in names if project.path(name).exists()}
        assert project.llmbatch_here("run", *arguments).returncode == 0
        return [name for name in names if project.path(name).stat().st_mtime_ns != before.get(name)]

    assert written_by() == names
    assert written_by("--select", "export,report") == []
    told = project.llmbatch_here("run", "--select", "export,report").stdout
    assert re.search(r"Unchanged since [-\d]+T[\d:.]+\+00:00: artifacts/outputs/output.csv, ", told)
    assert written_by("--select", "export,report", "--force") == names


# Any change.


def edit_output(project: Project, row: int) -> None:
    for path in outputs_of_row(project, row):
        output = json.loads(path.read_bytes())
        output["parsed"]["answer"] += "!" if len(output["parsed"]["answer"]) < 70 else ""
        path.write_bytes(json_bytes(output))


def break_output(project: Project, row: int) -> None:
    for path in outputs_of_row(project, row):
        path.write_bytes(b"{")


def remove_output(project: Project, row: int) -> None:
    for path in outputs_of_row(project, row):
        path.unlink()


def fail_item(project: Project, row: int) -> None:
    for path in outputs_of_row(project, row):
        project.write(f"artifacts/cache/llm_failures/{path.stem}__a1.json", "{")
        path.unlink()


def add_outputs(project: Project, row: int) -> None:
    generate(project, limit=row + 1)


def edit_row(project: Project, row: int) -> None:
    rows = [list(one) for one in ROWS]
    rows[row][2] += " Why?"
    project.table(rows)
    prepare(project)


def outputs_of_row(project: Project, row: int) -> Iterator[Path]:
    """The readable outputs of a row, of any settings."""
    for path in project.path("artifacts/cache/llm_outputs").glob("*.json"):
        with suppress(ValueError):
            if json.loads(path.read_bytes())["meta"]["row_index"] == row:
                yield path


SETTINGS: list[dict[str, Any]] = [
    {"outputs": {"formats": ["jsonl", "csv"]}},
    {"outputs": {"nested": "flatten", "escape_formulas": False, "csv_bom": True}},
    {"report": {"sample_per_group": 1, "count_by": ["team"]}},
    {"run": {"timezone": "Asia/Tokyo", "name": "Another"}},
    {"llm": {"temperature": 0.1}},
]


def change_settings(project: Project, row: int) -> None:
    project.parameters(**settings(**SETTINGS[row]))
    prepare(project)


CHANGES: list[Callable[[Project, int], None]] = [
    edit_output,
    break_output,
    remove_output,
    fail_item,
    add_outputs,
    edit_row,
    change_settings,
]


def rebuilt(project: Project, root: Path) -> dict[str, bytes]:
    """The files of a publication in a fresh copy of the project."""
    shutil.copytree(project.root, root, ignore=shutil.ignore_patterns("outputs", "reports", "pipeline[56]*"))
    fresh = Project(root)
    assert publish(fresh) == ["export", "report"]
    return published_files(fresh)


def published_files(project: Project) -> dict[str, bytes]:
    """The files that the manifests list."""
    manifests = [project.json(name) for name in MANIFESTS]
    return {path: project.path(path).read_bytes() for manifest in manifests for path in manifest["checksums"]}


@hypothesis_settings(
    max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=[HealthCheck.too_slow]
)
@given(st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 4)), min_size=1, max_size=4))
def test_after_any_change_the_files_are_those_of_a_full_rebuild(
    changes: list[tuple[Callable[[Project, int], None], int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "village")
        prepare(project)
        generate(project, limit=4)
        publish(project)
        for place, (change, row) in enumerate(changes):
            change(project, row)
            publish(project)
            assert published_files(project) == rebuilt(project, Path(folder) / f"fresh{place}")
            before = states_of_files(project)
            assert publish(project) == []
            assert states_of_files(project) == before
