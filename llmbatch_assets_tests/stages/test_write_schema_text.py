"""The schema's text follows its module, and what was replaced can be found again."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmbatch_assets.errors import SchemaError
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.write_schema import archive, ensure_schema_txt, replace_schema_file
from llmbatch_assets_tests.project import SCHEMA, Project, make_project, settings


@pytest.fixture
def home(tmp_path: Path) -> Project:
    return make_project(tmp_path)


def batch_of(project: Project) -> Batch:
    return BatchFile(project.config).load()


def archived(project: Project) -> list[str]:
    folder = project.path("archived")
    return sorted(path.read_text() for path in folder.iterdir()) if folder.exists() else []


def test_the_text_is_written_where_it_is_missing(home: Project) -> None:
    done = ensure_schema_txt(batch_of(home))
    assert done.written
    assert "schema/llm_schema.txt" in done.message
    assert set(home.json("schema/llm_schema.txt")["models"]) == {"LLMOutput", "JudgeResult"}
    assert archived(home) == []


def test_a_text_that_matches_is_left_alone(home: Project) -> None:
    first = ensure_schema_txt(batch_of(home))
    before = home.path("schema/llm_schema.txt").stat()
    second = ensure_schema_txt(batch_of(home))
    after = home.path("schema/llm_schema.txt").stat()
    assert (second.written, second.sha) == (False, first.sha)
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert archived(home) == []


def test_a_comment_in_the_module_changes_nothing(home: Project) -> None:
    ensure_schema_txt(batch_of(home))
    home.write("schema/llm_schema.py", SCHEMA + "\n# a comment\n")
    assert not ensure_schema_txt(batch_of(home)).written


@pytest.mark.parametrize("old", ["edited by hand\n", "", "\n"])
def test_a_text_that_does_not_match_is_archived_and_replaced(home: Project, old: str) -> None:
    home.write("schema/llm_schema.txt", old)
    done = ensure_schema_txt(batch_of(home))
    assert done.written
    assert re.search(r"archived the previous one as archived/llm_schema_\d{8}_\d{6}\.txt", done.message)
    assert archived(home) == [old]
    assert json.loads(home.path("schema/llm_schema.txt").read_text())["title"] == "LLM Schema"


def test_a_change_of_the_module_is_followed(home: Project) -> None:
    first = ensure_schema_txt(batch_of(home))
    home.write("schema/llm_schema.py", SCHEMA.replace("max_length=80", "max_length=90"))
    second = ensure_schema_txt(batch_of(home))
    assert second.written
    assert second.sha != first.sha
    assert "90" in home.path("schema/llm_schema.txt").read_text()
    assert ["80" in text for text in archived(home)] == [True]


def test_on_demand_it_is_written_again_and_the_same(home: Project) -> None:
    first = ensure_schema_txt(batch_of(home))
    before = home.path("schema/llm_schema.txt").read_text()
    second = ensure_schema_txt(batch_of(home), force=True)
    assert (second.written, second.sha) == (True, first.sha)
    assert home.path("schema/llm_schema.txt").read_text() == before
    assert archived(home) == [before]


def test_a_broken_module_leaves_the_text_alone(home: Project) -> None:
    home.write("schema/llm_schema.txt", "old")
    home.write("schema/llm_schema.py", "class LLMOutput:\n    pass\n")
    with pytest.raises(SchemaError, match=r"schema/llm_schema\.py:1"):
        ensure_schema_txt(batch_of(home))
    assert home.path("schema/llm_schema.txt").read_text() == "old"


def test_many_files_of_one_second_are_all_kept(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "llm_schema.py").write_text(str(number))
        archive(tmp_path / "llm_schema.py", tmp_path / "archived")
    kept = list((tmp_path / "archived").iterdir())
    assert sorted(path.read_text() for path in kept) == list("01234")
    assert all(re.fullmatch(r"llm_schema_\d{8}_\d{6}(_\d+)?\.py", path.name) for path in kept)
    # Until it is replaced, the file itself stays.
    assert (tmp_path / "llm_schema.py").read_text() == "4"


def test_two_runs_that_archive_at_once_keep_both(tmp_path: Path) -> None:
    files = [tmp_path / str(number) / "llm_schema.py" for number in range(12)]
    for number, path in enumerate(files):
        path.parent.mkdir()
        path.write_text(str(number))
    with ThreadPoolExecutor(len(files)) as at_once:
        kept = list(at_once.map(lambda path: archive(path, tmp_path / "archived"), files))
    assert [path.read_text() for path in kept] == [str(number) for number in range(12)]


def test_an_earlier_archive_of_the_same_name_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "llm_schema.py").write_text("new")
    first = archive(tmp_path / "llm_schema.py", tmp_path)
    first.write_text("the only copy")
    for _ in range(3):
        archive(tmp_path / "llm_schema.py", tmp_path)
    assert first.read_text() == "the only copy"


# A checkout on Windows.


def test_line_ends_of_another_system_are_no_difference(home: Project) -> None:
    ensure_schema_txt(batch_of(home))
    path = home.path("schema/llm_schema.txt")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert not ensure_schema_txt(batch_of(home)).written
    assert archived(home) == []


# llm_schema.on_mismatch: error.


def test_where_it_is_asked_for_a_text_that_does_not_match_is_an_error_and_stays(home: Project) -> None:
    home.parameters(**settings(llm_schema={"on_mismatch": "error"}))
    assert ensure_schema_txt(batch_of(home)).written
    home.write("schema/llm_schema.txt", "edited by hand")

    with pytest.raises(SchemaError) as refused:
        ensure_schema_txt(batch_of(home))

    told = str(refused.value)
    assert told.startswith("schema/llm_schema.txt does not match schema/llm_schema.py")
    assert "llmbatch run --select llm_schema_txt --force" in told
    assert home.path("schema/llm_schema.txt").read_text() == "edited by hand"
    assert archived(home) == []
    assert ensure_schema_txt(batch_of(home), force=True).written
    assert archived(home) == ["edited by hand"]


# A module that the model wrote.


def test_a_module_that_is_replaced_is_archived_first(home: Project) -> None:
    kept = replace_schema_file(batch_of(home), batch_of(home).layout.schema_py, "new")
    assert kept is not None
    assert (kept.read_text(), home.path("schema/llm_schema.py").read_text()) == (SCHEMA, "new")


def test_where_there_is_no_module_there_is_nothing_to_archive(home: Project) -> None:
    home.path("schema/llm_schema.py").unlink()
    assert replace_schema_file(batch_of(home), batch_of(home).layout.schema_py, "new") is None
    assert archived(home) == []
