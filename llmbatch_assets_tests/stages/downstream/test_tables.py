"""Tables for downstream assets: the same records whatever format was exported, and one row per item."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmbatch_assets.errors import ArtifactError, MissingArtifactError
from llmbatch_assets.stages.downstream.tables import exported_frame, exported_table, outputs_table, table_builder
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets_tests.memory_storage import kept_in_memory
from llmbatch_assets_tests.project import COLUMNS, ROWS, make_project

SCHEMA = '''"""Values of several kinds."""

from pydantic import BaseModel, ConfigDict, Field


class Place(BaseModel):
    """A place."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(...)
    floor: int = Field(...)


class LLMOutput(BaseModel):
    """Values of several kinds."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(..., ge=0, le=9)
    maybe: float | None = Field(None)
    certain: bool = Field(...)
    words: list[str] = Field(..., min_length=1, max_length=2)
    place: Place = Field(...)
'''

RunBatch = Callable[..., Batch]


@pytest.fixture
def run_batch(tmp_path: Path) -> RunBatch:
    """Makes a project, runs it offline, and gives its batch."""

    def run(rows: Any = ROWS, columns: Sequence[str] = COLUMNS, **blocks: Any) -> Batch:
        project = make_project(tmp_path / "project", **blocks)
        project.write("schema/llm_schema.py", SCHEMA)
        project.table(rows, columns)
        with kept_in_memory(project.path("dagster_home")):
            ended = project.llmbatch_here("run")
        assert ended.returncode == 0, ended.stderr
        return BatchFile(project.config).load()

    return run


@pytest.mark.parametrize("file_format", ["jsonl", "parquet", "csv", "psv", "tsv", "xlsx"])
@pytest.mark.parametrize("nested", ["json", "flatten"])
def test_an_export_is_read_back_with_its_types(run_batch: RunBatch, file_format: str, nested: str) -> None:
    batch = run_batch(outputs={"formats": [file_format], "nested": nested})
    exported, outputs = exported_table(batch), outputs_table(batch)
    # The outputs have the partition key as well.
    assert list(exported.columns) == list(outputs.columns[1:])
    assert [list(row) for row in exported.rows] == [list(row[1:]) for row in outputs.rows]
    frame = exported_frame(batch)
    assert str(frame["count"].dtype) == "Int64"
    assert isinstance(frame["words"][0], list)
    assert ("place.floor" in frame) == (nested == "flatten")


def test_rows_that_share_an_item_are_one_row_of_the_outputs(run_batch: RunBatch) -> None:
    rows = [*ROWS, ROWS[0]]
    batch = run_batch(rows, work_items={"duplicates": "share"})
    assert (len(outputs_table(batch).rows), len(exported_table(batch).rows)) == (5, 6)


@pytest.mark.parametrize("group_rows", ["one", "expand"])
def test_the_item_of_a_group_is_one_row_of_the_outputs(run_batch: RunBatch, group_rows: str) -> None:
    grouping = {"enabled": True, "column": "team", "mode": "group_output"}
    batch = run_batch(grouping=grouping, outputs={"group_rows": group_rows, "formats": ["jsonl"]})
    table = outputs_table(batch)
    names = [column.name for column in table.columns]
    assert [row[names.index("team")] for row in table.rows] == ["red", "blue"]
    assert len(exported_table(batch).rows) == (5 if group_rows == "expand" else 2)


def test_some_partitions_are_some_rows(run_batch: RunBatch) -> None:
    batch = run_batch()
    keys = [row[0] for row in outputs_table(batch).rows]
    assert [row[0] for row in outputs_table(batch, {keys[3], keys[1]}).rows] == [keys[1], keys[3]]


def test_a_column_named_partition_key_stays_the_users(run_batch: RunBatch) -> None:
    batch = run_batch(columns=("partition_key", "team", "question"))
    names = [column.name for column in outputs_table(batch).columns]
    assert names[:2] == ["meta_partition_key", "partition_key"]


def test_an_export_that_is_gone_names_the_command_that_writes_it(run_batch: RunBatch) -> None:
    batch = run_batch(outputs={"formats": ["csv"]})
    batch.path("artifacts/outputs/output.csv").unlink()
    with pytest.raises(MissingArtifactError, match=r"output\.csv does not exist; write it with: llmbatch run --select"):
        exported_table(batch)


def test_an_export_that_was_edited_is_refused(run_batch: RunBatch) -> None:
    batch = run_batch(outputs={"formats": ["csv"]})
    path = batch.path("artifacts/outputs/output.csv")
    path.write_text(path.read_text().replace("certain", "sure", 1))
    with pytest.raises(ArtifactError, match="does not have the columns that its manifest lists"):
        exported_table(batch)


def test_only_tables_are_built() -> None:
    assert table_builder(pd.DataFrame) is not None
    assert table_builder(dict) is None
    assert table_builder(dict[str, Any]) is None
