"""A folder, pipe or foreign file in the place of our files, and a full disk: the path is reported, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmbatch_assets_tests.chat_server import ChatServer, says
from llmbatch_assets_tests.project import SCHEMA, Project

MakeProject = Callable[..., Project]
CACHE = "artifacts/cache"


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "theirs.txt").write_text("theirs")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_nowhere(path: Path) -> None:
    path.symlink_to("/nowhere")


def an_empty_file(path: Path) -> None:
    path.write_bytes(b"")


def a_foreign_object(path: Path) -> None:
    path.write_text('{"their": "file"}')


def a_foreign_list(path: Path) -> None:
    path.write_text("[1]")


def a_binary_file(path: Path) -> None:
    path.write_bytes(b"\x00\xff" * 100)


KINDS = (a_folder, a_pipe, a_link_to_nowhere, an_empty_file, a_foreign_object, a_foreign_list, a_binary_file)
NO_FILES = KINDS[:3]
# The files that a run with nothing to generate reads or writes.
PLACES = [
    *(f"{CACHE}/pipeline{number}" for number in ("2_input.json", "3_group_contexts.json", "3_work_items.json")),
    *(f"{CACHE}/pipeline{number}_manifest.json" for number in (4, 5, 6)),
    *(f"{CACHE}/{name}" for name in ("usage.jsonl", "run_history.jsonl", "claims.lock", "report_charts.json")),
    f"{CACHE}/provenance/uses.jsonl",
    *(f"artifacts/outputs/output.{suffix}" for suffix in ("csv", "psv", "jsonl", "xlsx", "parquet")),
    "artifacts/outputs/output_not_exported.csv",
    *(f"artifacts/reports/report.{suffix}" for suffix in ("md", "html")),
    "schema/llm_schema.txt",
]


def put(kind: Callable[[Path], None], path: Path) -> None:
    path.unlink(missing_ok=True)
    kind(path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_in_the_place_of_an_output_is_set_aside_and_only_its_item_runs_again(
    project_with: MakeProject,
    server: ChatServer,
    kind: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    project = project_with()
    assert project.llmbatch_here("run").returncode == 0
    path = project.output_of(1)
    put(kind, path)
    assert project.llmbatch_here("status").returncode == 0

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stderr
    assert (server.count(), project.rows_done()) == (6, [0, 1, 2, 3, 4])
    aside = path.with_name(f"{path.name}.broken")
    assert os.path.lexists(aside)
    assert f"{path} was set aside as {aside.name} because it " in caplog.text
    if kind is a_folder:
        assert (aside / "theirs.txt").read_text() == "theirs"
        # It is the user's.
        assert project.llmbatch_here("prune", "--yes").returncode == 0
        assert (aside / "theirs.txt").read_text() == "theirs"


@pytest.mark.parametrize("kind", NO_FILES, ids=lambda kind: kind.__name__)
def test_what_is_in_the_place_of_any_other_file_is_set_aside(
    project_with: MakeProject, server: ChatServer, kind: Callable[[Path], None]
) -> None:
    # All at once: each is looked at on its own.
    project = project_with(outputs={"formats": ["csv", "psv", "jsonl", "xlsx", "parquet"]})
    assert project.llmbatch_here("run").returncode == 0
    for name in PLACES:
        put(kind, project.path(name))
    for provenance in project.path(f"{CACHE}/provenance").glob("*.json"):
        put(kind, provenance)

    ended = project.llmbatch_here("run")

    assert ended.returncode == 0, ended.stderr
    assert server.count() == 5
    # One more call, for which the other files are needed.
    project.output_of(0).unlink()
    assert project.llmbatch_here("run").returncode == 0
    assert [name for name in PLACES if not project.path(name).is_file()] == []
    assert [name for name in PLACES if not os.path.lexists(project.path(f"{name}.broken"))] == []
    assert len(project.path(f"{CACHE}/usage.jsonl").read_bytes().splitlines()) == 1


@pytest.mark.parametrize("kind", [a_foreign_object, a_foreign_list, a_binary_file], ids=lambda kind: kind.__name__)
def test_a_foreign_file_in_the_place_of_any_other_is_replaced_or_added_to(
    project_with: MakeProject, server: ChatServer, kind: Callable[[Path], None]
) -> None:
    project = project_with(outputs={"formats": ["csv", "psv", "jsonl", "xlsx", "parquet"]})
    assert project.llmbatch_here("run").returncode == 0
    for name in PLACES:
        put(kind, project.path(name))
    # They read the work items, and say how to make them again.
    for command in ("status", "plan"):
        ended = project.llmbatch_here(command)
        assert ended.returncode == 0 or "make it again with: llmbatch run" in ended.stderr, ended.stderr
    for command in ("run", "status", "plan", "run"):
        ended = project.llmbatch_here(command)
        assert ended.returncode == 0, (command, ended.stderr)
    assert server.count() == 5


@pytest.mark.parametrize("kind", NO_FILES, ids=lambda kind: kind.__name__)
def test_a_folder_or_pipe_among_failures_and_waiting_answers_keeps_no_item_from_its_run(
    project_with: MakeProject, server: ChatServer, kind: Callable[[Path], None]
) -> None:
    project = project_with(llm={"max_retries": 1}, prompts={"judge": {"enabled": True}})
    server.script(lambda call: True, *[says("no")] * 5, purpose="generate")
    assert project.llmbatch_here("run").returncode == 3
    cache_ids = [name.partition("__a")[0] for name in project.failures()]
    for name in project.failures():
        put(kind, project.path(f"{CACHE}/llm_failures/{name}"))
    project.path(f"{CACHE}/awaiting_judge").mkdir(exist_ok=True)
    for cache_id in cache_ids:
        put(kind, project.path(f"{CACHE}/awaiting_judge/{cache_id}.json"))
    assert project.llmbatch_here("status").returncode == 0
    ended = project.llmbatch_here("run")
    assert ended.returncode == 0, ended.stderr
    assert len(project.outputs()) == 5


# A full disk.


def mount_or_skip(folder: Path, size: str) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Mounts a file system without room over a folder, and keeps the files that are there."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        kept = tmp_path / "kept"
        shutil.copytree(folder, kept)
        mount_or_skip(folder, "1m")
        mounted.append(folder)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


# The command that first writes to the folder, and the file that does not fit.
NO_ROOM = {
    "snapshot": (CACHE, "input_snapshot", "pipeline2_input.json"),
    "work items": (CACHE, "work_items", "pipeline3_work_items.json"),
    "export": ("artifacts/outputs", "export", "output_not_exported.csv"),
    "workbook": ("artifacts/outputs", "export", "output.xlsx"),
    "Parquet table": ("artifacts/outputs", "export", "output.parquet"),
    "report": ("artifacts/reports", "report", "report.md"),
    "schema text": ("schema", "llm_schema_txt", "llm_schema.txt"),
}


@pytest.mark.parametrize("name", NO_ROOM)
def test_a_full_disk_is_reported_with_the_path_and_the_cause(
    project_with: MakeProject, full_disk: Callable[[Path], None], name: str
) -> None:
    folder, asset, file = NO_ROOM[name]
    # The list of what is not exported is written first, so it is elsewhere in the cases of other files.
    listed = "" if file == "output_not_exported.csv" else "artifacts/not_exported.csv"
    formats = [Path(file).suffix[1:] if asset == "export" else "csv"]
    project = project_with(outputs={"formats": formats, "not_exported_path": listed})
    assert project.llmbatch_here("run").returncode == 0
    # The new content needs room.
    project.table([(f"q{number}", "red", f"question {number}") for number in range(9)])
    project.write("schema/llm_schema.py", SCHEMA.replace("max_length=80", "max_length=90"))
    upstream = {
        "work_items": "input_snapshot",
        "export": "llm_schema_txt,input_snapshot,work_items,llm_outputs",
        "report": "llm_schema_txt,input_snapshot,work_items,llm_outputs,export",
    }
    if asset in upstream:
        assert project.llmbatch_here("run", "--select", upstream[asset]).returncode == 0
    before = project.path(folder).joinpath(file).read_bytes()
    full_disk(project.path(folder))

    ended = project.llmbatch_here("run", "--select", asset)

    assert ended.returncode == 1, ended.stdout
    told = ended.stdout + ended.stderr
    assert f"/{file} cannot be written: No space left on device (disk); free some space and run again" in told
    assert "Traceback" not in told
    assert project.path(folder).joinpath(file).read_bytes() == before
    assert [path.name for path in project.path(folder).iterdir() if path.suffix == ".tmp"] == []


def test_a_full_disk_stops_a_run_with_the_path_of_the_output(
    project_with: MakeProject, full_disk: Callable[[Path], None], server: ChatServer
) -> None:
    project = project_with()
    assert project.llmbatch_here("run", "--select", "llm_schema_txt,input_snapshot,work_items").returncode == 0
    outputs = project.path(f"{CACHE}/llm_outputs")
    outputs.mkdir()
    full_disk(outputs)
    # Room for the test of the folder, but not for an output.
    (outputs / "filler").unlink()
    server.script(lambda call: True, says({"answer": "x" * 70, "certain": True}), repeat_last=True)
    with (outputs / "filler").open("wb") as filler:
        filler.write(bytes(1024 * 1024 - 64 * 1024 - 2 * 4096))
    project.table([(f"q{number}", "red", f"question {number}") for number in range(60)])
    ended = project.llmbatch_here("run", "--select", "input_snapshot,work_items,llm_outputs")
    assert ended.returncode == 1
    assert re.search(r"llm_outputs/[0-9a-f]{40}\.json", ended.stdout + ended.stderr)
    assert "No space left on device" in ended.stdout + ended.stderr
    assert project.json(f"{CACHE}/pipeline4_manifest.json")["meta"]["stopped_by"] == "disk"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_an_output_that_may_not_be_read_stops_the_run_and_is_not_paid_for_again(
    project_with: MakeProject, server: ChatServer
) -> None:
    project = project_with()
    assert project.llmbatch_here("run").returncode == 0
    path = project.output_of(1)
    path.chmod(0)
    ended = project.llmbatch_here("run")
    path.chmod(0o600)
    assert (ended.returncode, server.count()) == (1, 5)
    told = ended.stdout + ended.stderr
    assert (str(path) in told, "Permission denied" in told) == (True, True)
