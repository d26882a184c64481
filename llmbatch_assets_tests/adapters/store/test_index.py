"""The state of an output comes from its file, whatever else is known about it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llmbatch_assets.adapters.store.artifact_cache import ARTIFACTS
from llmbatch_assets.adapters.store.index import CacheFolders, CacheIndex
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.errors import AnswerError, FailureCause
from llmbatch_assets_tests.domain.strategies import make_item, make_output
from llmbatch_assets_tests.opened_files import recording_opens

OUTPUT = make_output(make_item(1))
CACHE_ID = OUTPUT.meta["cache_id"]


def index_of(root: Path) -> CacheIndex:
    folder = root / "llm_outputs"
    return CacheIndex(CacheFolders(folder, folder, folder, folder), known_file=root / "known.sqlite3")


def save(root: Path, output: AcceptedOutput = OUTPUT) -> Path:
    """Write an output and wait until its timestamps are old enough to be trusted."""
    path = root / f"llm_outputs/{CACHE_ID}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(output.model_dump_json())
    time.sleep(0.03)
    return path


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """The folder of an accepted output that an earlier command has read."""
    save(tmp_path)
    earlier = index_of(tmp_path)
    assert earlier.state(CACHE_ID) == "accepted"
    earlier.remember()
    return tmp_path


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    ARTIFACTS.clear()
    yield
    ARTIFACTS.clear()


def seen(root: Path) -> tuple[str, str, float | None, int]:
    """State, hash and score of the output, and how often its file was opened for them."""
    ARTIFACTS.clear()
    index = index_of(root)
    with recording_opens() as opened:
        found = index.state(CACHE_ID), index.output_sha(CACHE_ID), index.judge_score(CACHE_ID)
    return (*found, len(opened))


def sha_of(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_a_known_output_is_not_opened(known: Path) -> None:
    assert seen(known) == ("accepted", sha_of(known / f"llm_outputs/{CACHE_ID}.json"), 90.0, 0)


def test_an_output_is_known_as_soon_as_it_is_saved(tmp_path: Path) -> None:
    path, index = save(tmp_path), index_of(tmp_path)
    index.learn_saved(OUTPUT, path.read_bytes())
    index.remember()
    assert seen(tmp_path) == ("accepted", sha_of(path), 90.0, 0)


def keep_times(path: Path, text: str) -> None:
    """Edit a file so that neither its size nor its time of modification shows it."""
    before = path.stat()
    path.write_text(text.ljust(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by(text: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_text(text)

    return apply


def put_other(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_text("{}")
    other.replace(path)


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


TAMPERED: dict[str, Callable[[Path], None]] = {
    "edited with its times set back": lambda path: keep_times(path, "{}"),
    "replaced by another file": put_other,
    "emptied": replace_by(""),
    "removed": Path.unlink,
    "replaced by a folder": put_folder,
    "replaced by a broken link": put_broken_link,
}


@pytest.mark.parametrize("tampered", TAMPERED)
def test_a_tampered_file_counts_whatever_is_known(known: Path, tampered: str) -> None:
    TAMPERED[tampered](known / f"llm_outputs/{CACHE_ID}.json")
    assert seen(known)[:3] == ("missing", "", None)


def test_another_accepted_output_in_the_same_place_is_noticed(known: Path) -> None:
    path = save(known, OUTPUT.model_copy(update={"judge": {**(OUTPUT.judge or {}), "score": 7}}))
    assert seen(known) == ("accepted", sha_of(path), 7.0, 1)


def change(statement: str) -> Callable[[Path], None]:
    def apply(database: Path) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(statement)

    return apply


BROKEN = {
    "no database": lambda path: path.unlink(),
    "half a database": lambda path: path.write_bytes(path.read_bytes()[:5_000]),
    "no entry": change("DELETE FROM outputs"),
    "an entry about another version of the file": change("UPDATE outputs SET changed_ns = 1"),
    "an entry about a file elsewhere": change("UPDATE outputs SET inode = inode + 1, sha = 'wrong'"),
    "an entry of another kind": change("UPDATE outputs SET size = 'wrong', sha = NULL"),
    "another table": change("DROP TABLE outputs"),
    "another version's database": change("PRAGMA user_version = 99"),
    "another program's database": change("PRAGMA application_id = 0"),
    "text": replace_by("known outputs"),
    "nothing": replace_by(""),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_wrong_missing_or_foreign_database_is_noticed_and_repaired(known: Path, broken: str) -> None:
    right = seen(known)
    BROKEN[broken](known / "known.sqlite3")
    assert seen(known)[:3] == right[:3]
    index = index_of(known)
    assert index.state(CACHE_ID) == "accepted"
    index.remember()
    assert seen(known) == right, "the file was opened again"


def test_a_copied_project_knows_nothing_about_its_copies(known: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copytree(known / "llm_outputs", copy / "llm_outputs")
    shutil.copy(known / "known.sqlite3", copy)
    time.sleep(0.03)
    assert seen(copy)[3] == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    save(tmp_path)
    tmp_path.chmod(0o500)
    index = index_of(tmp_path)
    assert index.state(CACHE_ID) == "accepted"
    index.remember()
    tmp_path.chmod(0o700)
    assert not (tmp_path / "known.sqlite3").exists()


class Contract:
    """A schema that accepts no answer."""

    def __init__(self, sha: str) -> None:
        self.sha = sha

    def validate(self, answer: object) -> None:
        raise AnswerError(FailureCause.SCHEMA_MISMATCH, f"{answer} does not match")


def test_an_edited_output_is_checked_again_for_each_schema(tmp_path: Path) -> None:
    output = make_output(make_item(1))
    stored = output.model_dump(mode="json") | {"parsed_sha": "of what it was before"}
    cache_id = output.meta["cache_id"]
    (tmp_path / f"{cache_id}.json").write_text(json.dumps(stored))
    own, other = output.meta["identity"]["schema_sha"], "another schema"
    states = [
        CacheIndex(CacheFolders(*[tmp_path] * 4), lambda sha=sha: Contract(sha)).state(cache_id)  # type: ignore[misc]
        for sha in (other, own, other)
    ]
    assert states == ["accepted", "missing", "accepted"]


def test_an_output_has_the_sha_of_its_file_as_long_as_it_is_accepted(tmp_path: Path) -> None:
    assert index_of(tmp_path).output_sha(CACHE_ID) == ""
    path = save(tmp_path)
    index = index_of(tmp_path)
    assert index.output_sha(CACHE_ID) == sha_of(path)
    path.write_text("{}")
    assert index.output_sha(CACHE_ID) == ""
