"""A small file that would fill the memory is refused before it does, and a setting lets it in."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from llmbatch_assets.adapters.tables.expansion import ExpansionLimit
from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.errors import TableError
from llmbatch_assets_tests.tables import parquet_of


def n_rows(path: Path, max_mb: int) -> int:
    return len(list(read_table(path, Input(max_expanded_mb=max_mb)).rows))


def test_what_is_read_is_counted_up_to_the_limit() -> None:
    limit = ExpansionLimit(Path("t.xlsx"), 1)
    limit.add(900_000)
    limit.add(100_000)
    with pytest.raises(TableError, match=r"t\.xlsx expands to at least 1\.0 MB of data.*raise input\.max_expanded_mb"):
        limit.add(1)


def test_parquet_that_states_more_than_is_allowed_is_refused(tmp_path: Path) -> None:
    # One value, which the file holds once.
    path = tmp_path / "t.parquet"
    path.write_bytes(parquet_of(pa.table({"a": ["x"] * 300_000}), compression="zstd"))
    assert path.stat().st_size < 10_000
    with pytest.raises(TableError, match=r"input\.max_expanded_mb"):
        n_rows(path, 1)
    assert n_rows(path, 1_000) == 300_000


def test_parquet_is_counted_while_it_is_read(tmp_path: Path) -> None:
    # The dictionary holds the long text once, so the file states a small size.
    path = tmp_path / "t.parquet"
    path.write_bytes(parquet_of(pa.table({"a": ["x" * 10_000] * 1_000})))
    with pytest.raises(TableError, match=r"input\.max_expanded_mb"):
        n_rows(path, 1)
    assert n_rows(path, 100) == 1_000


def test_records_with_a_key_of_their_own_each_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({f"k{number}": 1}) + "\n" for number in range(1_000)))
    with pytest.raises(TableError, match=r"expands to at least 32 MB of empty cells.*input\.max_expanded_mb"):
        n_rows(path, 1)
    assert n_rows(path, 1_000) == 1_000
