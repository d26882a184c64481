"""Every path that a configuration can name is compared with all others."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from llmbatch_assets.domain import file_uses
from llmbatch_assets.domain.configuration.parameters import Parameters, read_parameters
from llmbatch_assets.domain.file_uses import FileUse
from llmbatch_assets.domain.layout import Layout

CONFIG = PurePosixPath("configs/parameters.yaml")
# Folders, and a file that is never written.
OTHER_PATHS = {"artifacts.logs_dir", "prompts.schema_auto_json_summarization.path"}
EVERYTHING = {
    "prompts": {"judge": {"enabled": True}},
    "outputs": {"formats": ["csv", "psv", "tsv", "jsonl", "xlsx", "parquet"]},
    "artifacts": {"outputs_dir": "o", "reports_dir": "r"},
    "run": {"log_file": "run.log"},
}


def all_uses(layout: Layout) -> list[FileUse]:
    return [
        *file_uses.user_files(layout, CONFIG),
        file_uses.schema_module(layout),
        *file_uses.named_files(layout),
        *file_uses.artifact_files(layout),
        *file_uses.named_folders(layout),
    ]


def path_keys() -> set[str]:
    """The keys of all blocks that name a file or a folder."""
    found = set()
    for block, field in Parameters.model_fields.items():
        for key, inner in (field.annotation or Parameters).model_fields.items():
            is_block = hasattr(inner.annotation, "model_fields")
            names = [f"{key}.{one}" for one in inner.annotation.model_fields] if is_block else [key]  # type: ignore[union-attr]
            found |= {f"{block}.{name}" for name in names if name.endswith(("path", "dir", "log_file"))}
    return found


def test_every_key_that_names_a_path_is_compared() -> None:
    named = {use.key for use in all_uses(Layout("parameters", read_parameters(EVERYTHING)))}
    assert path_keys() - named - OTHER_PATHS == set()


def test_what_is_not_written_is_not_compared() -> None:
    layout = Layout("parameters", read_parameters({"outputs": {"formats": ["csv"]}, "report": {"enabled": False}}))
    keys = {use.key for use in all_uses(layout)}
    assert "outputs.csv_path" in keys
    assert not keys & {"outputs.psv_path", "report.md_path", "report.html_path", "run.log_file", "prompts.judge.path"}


@pytest.mark.parametrize(("named", "is_named"), [({"dir": "made"}, True), ({}, False)])
def test_a_default_folder_is_not_named(named: dict[str, str], is_named: bool) -> None:
    layout = Layout("parameters", read_parameters({"artifacts": named}))
    assert next(file_uses.artifact_roots(layout)).is_named_in(layout) is is_named


def test_a_message_says_what_the_file_is_and_what_to_do() -> None:
    written = FileUse("outputs.csv_path", PurePosixPath("a.csv"), "the csv export")
    table = FileUse("input.path", PurePosixPath("a.csv"), "the input table", is_written=False)
    assert file_uses.same_file(written, table) == (
        "outputs.csv_path: a.csv is also the input table (input.path), which a run would overwrite; name another file"
    )
