"""Two names of one file are found, whatever makes them different names."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from llmbatch_assets.adapters.files.file_conflicts import ConfiguredPaths, find_conflicts, find_shared
from llmbatch_assets.domain.configuration.parameters import read_parameters
from llmbatch_assets.domain.layout import Layout

CONFIG, SECOND = PurePosixPath("configs/parameters.yaml"), PurePosixPath("configs/second.yaml")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose table has an accent in its name, composed of two characters."""
    (tmp_path / "raw_data").mkdir()
    (tmp_path / "raw_data/cafe\u0301.csv").write_text("a\n1\n")
    return tmp_path


def conflicts(root: Path, csv_path: str, **blocks: Any) -> list[str]:
    outputs = {"formats": ["csv"], "csv_path": csv_path}
    table = {"path": "raw_data/cafe\u0301.csv"}
    return find_conflicts(
        root, CONFIG, Layout("parameters", read_parameters({"input": table, "outputs": outputs, **blocks}))
    )


@pytest.mark.parametrize(
    "name",
    [
        *("raw_data/cafe\u0301.csv", "raw_data/caf\u00e9.csv", "raw_data/CAFE\u0301.CSV", "RAW_DATA/cafe\u0301.csv"),
        *("./raw_data/cafe\u0301.csv", "raw_data/../raw_data/cafe\u0301.csv", "raw_data//cafe\u0301.csv"),
    ],
)
def test_the_table_is_known_by_every_name(root: Path, name: str) -> None:
    (found,) = conflicts(root, name)
    assert found.startswith("outputs.csv_path: ")
    assert "the input table (input.path), which a run would overwrite" in found


def test_absolute_paths_and_links_lead_to_the_same_file(root: Path) -> None:
    table = root / "raw_data/cafe\u0301.csv"
    assert conflicts(root, str(table))
    (root / "link.csv").symlink_to(table)
    assert conflicts(root, "link.csv")
    (root / "folder").symlink_to(table.parent)
    assert conflicts(root, "folder/cafe\u0301.csv")
    (root / "hard.csv").hardlink_to(table)
    assert conflicts(root, "hard.csv")
    # A link that leads nowhere yet, and one that leads to itself.
    (root / "later.csv").symlink_to(root / "out.csv")
    assert conflicts(root, "later.csv") == []
    assert conflicts(root, "later.csv", report={"md_path": "out.csv"}) == []
    (root / "loop.csv").symlink_to(root / "loop.csv")
    assert conflicts(root, "loop.csv") == []


def test_other_files_are_no_conflict(root: Path) -> None:
    assert conflicts(root, "raw_data/output.csv") == []
    assert conflicts(root, "") == []


def shared(root: Path, own: dict[str, Any], other: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The messages of the default batch and a second one about each other."""
    mine = ConfiguredPaths(CONFIG, Layout("parameters", read_parameters(own)))
    theirs = ConfiguredPaths(SECOND, Layout("second", read_parameters(other)))
    return find_shared(root, mine, [theirs]), find_shared(root, theirs, [mine])


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ({}, {}),
        # The folders of one batch may be next to or inside those of another.
        ({"artifacts": {"dir": "made"}}, {"artifacts": {"dir": "made/second"}}),
        # Files that are only read, or are the same for both.
        ({"input": {"path": "t.csv"}}, {"input": {"path": "t.csv"}}),
        ({"prompts": {"generation": {"path": "p.yaml"}}}, {"prompts": {"generation": {"path": "p.yaml"}}}),
        ({"llm_schema": {"py_path": "s.py"}}, {"llm_schema": {"py_path": "s.py"}}),
        ({"llm_schema": {"py_path": "s.py"}}, {"llm_schema": {"py_path": "s.py", "force_regenerate": True}}),
        # The export of one is the table of another.
        ({"outputs": {"csv_path": "x.csv", "formats": ["csv"]}}, {"input": {"path": "x.csv"}}),
        # Not written: no report, another format.
        ({"report": {"enabled": False, "md_path": "r.md"}}, {"report": {"md_path": "r.md"}}),
        ({"outputs": {"csv_path": "x.csv", "formats": ["psv"]}}, {"outputs": {"csv_path": "x.csv"}}),
    ],
)
def test_batches_may_read_the_same_files(root: Path, own: dict[str, Any], other: dict[str, Any]) -> None:
    assert shared(root, own, other) == ([], [])


@pytest.mark.parametrize(
    ("own", "other", "key"),
    [
        ({"artifacts": {"dir": "made"}}, {"artifacts": {"dir": "./MADE/"}}, "artifacts.dir"),
        ({}, {"artifacts": {"dir": "artifacts"}}, "artifacts.dir"),
        ({"cache": {"dir": "c"}}, {"cache": {"dir": "c"}}, "cache.dir"),
        ({}, {"cache": {"dir": "artifacts/cache/llm_outputs"}}, "cache.dir"),
        ({}, {"artifacts": {"dir": "artifacts/cache/second"}}, "artifacts.dir"),
        ({"report": {"md_path": "r.md"}}, {"report": {"md_path": "r.md"}}, "report.md_path"),
        ({"outputs": {"psv_path": "x"}}, {"report": {"html_path": "x"}}, "report.html_path"),
        ({"artifacts": {"outputs_dir": "o"}}, {"artifacts": {"outputs_dir": "o"}}, "outputs.psv_path"),
        ({"run": {"log_file": "l/l"}}, {"run": {"log_file": "l/l"}}, "run.log_file"),
        ({"run": {"log_file": "l/l"}}, {"run": {"log_file": "l/l.1"}}, "run.log_file"),
        ({"llm_schema": {"txt_path": "t"}}, {"llm_schema": {"txt_path": "t"}}, "llm_schema.txt_path"),
        (
            {"llm_schema": {"py_path": "s.py", "force_regenerate": True}},
            {"llm_schema": {"py_path": "s.py", "force_regenerate": True}},
            "llm_schema.py_path",
        ),
        ({"prompts": {"generation": {"path": "p"}}}, {"report": {"md_path": "p"}}, "report.md_path"),
        ({}, {"outputs": {"psv_path": "artifacts/cache/usage.jsonl"}}, "outputs.psv_path"),
        ({}, {"outputs": {"not_exported_path": "schema/llm_schema.py"}}, "outputs.not_exported_path"),
    ],
)
def test_batches_never_write_the_same_files(root: Path, own: dict[str, Any], other: dict[str, Any], key: str) -> None:
    mine, theirs = shared(root, own, other)
    assert any(key in message for message in mine), mine
    assert any(key in message for message in theirs), theirs
    assert all(str(SECOND) in message for message in mine)
    assert all(str(CONFIG) in message for message in theirs)


def test_a_hundred_batches_are_compared_in_a_fraction_of_a_second(root: Path) -> None:
    layouts = [Layout(f"b{number}", read_parameters({})) for number in range(100)]
    stats = 0
    real = Path.stat

    def counting(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        nonlocal stats
        stats += 1
        return real(self, follow_symlinks=follow_symlinks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "stat", counting)
        theirs = [ConfiguredPaths(PurePosixPath(f"configs/b{n}.yaml"), one) for n, one in enumerate(layouts[1:])]
        assert find_shared(root, ConfiguredPaths(CONFIG, layouts[0]), theirs) == []
    # The files of each batch once, and its own once for all.
    assert stats / 99 < 60
