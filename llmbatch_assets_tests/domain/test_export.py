"""Outputs beside their rows: each in its own column, at the place that the plan of today says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.export import cell_text, cells, export_columns, export_manifest, records
from llmbatch_assets.domain.grouping import make_plan
from llmbatch_assets_tests.domain.strategies import ROW_MODES, make_item, make_output, parameters, quick, snapshot

ROWS = (("1", "red", "a"), ("2", "blue", "b"), ("1", "red", "a"), ("3", "red", "c"))
TABLE = snapshot(ROWS)
# Names as tables and models have them, among them those of our own columns.
FIELD_NAMES = st.sampled_from(
    [
        "id",
        "text",
        "answer",
        "parsed_id",
        "parsed_parsed_id",
        "meta_work_id",
        "meta_model",
        "judge_score",
        "judge_verdict",
    ]
)
NAMES = st.lists(FIELD_NAMES, unique=True, max_size=6)


@quick
@given(NAMES, NAMES)
def test_no_column_overwrites_another(input_columns: list[str], output_fields: list[str]) -> None:
    names = [column.name for column in export_columns(input_columns, output_fields)]
    assert len(set(names)) == len(names)


def test_columns_come_in_their_fixed_order() -> None:
    columns = export_columns(["id", "answer"], ["answer", "mood"])
    assert [column.name for column in columns] == [
        "id",
        "answer",
        "meta_work_id",
        "meta_row_index",
        "meta_group_key",
        "meta_group_context_id",
        "parsed_answer",
        "mood",
        "judge_verdict",
        "judge_score",
        "judge_reasons_json",
        "meta_cache_id",
        "meta_model",
        "meta_temperature",
        "meta_created_at_utc",
    ]


def made(mode: str, **work_items: Any) -> list[dict[str, Any]]:
    """The records of a table of which every item has an output that names its work id."""
    read = parameters(grouping=ROW_MODES[mode], work_items=work_items)
    items = make_plan(TABLE, read).items
    # The artifacts are of a day on which the rows stood elsewhere.
    old = [replace(item, row_index=99, group_key="old", partition_key="old") for item in items]
    pairs = [(item, make_output(then, {"of": item.work_id})) for item, then in zip(items, old, strict=True)]
    return list(records(TABLE, "team", pairs))


@pytest.mark.parametrize("mode", ["row_wise", "row_output_with_group_context"])
def test_every_row_gets_its_output_and_its_place_of_today(mode: str) -> None:
    found = made(mode)
    assert [record["meta"]["row_index"] for record in found] == [0, 1, 2, 3]
    assert [record["input"] for record in found] == TABLE.rows
    assert all(record["parsed"] == {"of": record["meta"]["work_id"]} for record in found)
    groups = [None] * 4 if mode == "row_wise" else ["red", "blue", "red", "red"]
    assert [record["meta"]["group_key"] for record in found] == groups
    assert "old" not in {record["meta"]["partition_key"] for record in found}


def test_rows_that_share_an_output_each_have_a_record_of_their_own() -> None:
    found = {record["meta"]["row_index"]: record for record in made("row_wise", duplicates="share")}
    assert set(found) == {0, 1, 2, 3}
    assert found[0]["parsed"] == found[2]["parsed"] != found[3]["parsed"]
    assert found[2]["input"] == TABLE.rows[2]


def test_records_stand_in_the_order_of_the_table_also_where_rows_share_an_output() -> None:
    found = made("row_wise", duplicates="share")
    assert [record["meta"]["row_index"] for record in found] == [0, 1, 2, 3]


def test_the_output_of_a_group_has_all_its_rows() -> None:
    red, blue = made("group_output")
    assert red["input"] == {"team": "red"}
    assert red["meta"]["row_index"] is None
    assert red["meta"]["group_key"] == red["input"]["team"]
    assert red["input_group_row_indices"] == [0, 2, 3]
    assert red["input_group_rows"] == [TABLE.rows[index] for index in (0, 2, 3)]
    assert (red["grouping_column"], blue["input_group_row_indices"]) == ("team", [1])
    assert red["group_context"].startswith("red (3 rows)")


def test_a_row_without_output_has_no_record() -> None:
    assert list(records(TABLE, None, [])) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text, as it is\n", "text, as it is\n"),
        (None, ""),
        ("", ""),
        (True, "true"),
        (0, "0"),
        (0.5, "0.5"),
        ([], "[]"),
        (["ü", 1], '["ü",1]'),
        ({"b": 1, "a": None}, '{"a":null,"b":1}'),
    ],
)
def test_a_cell_is_text_as_it_is_and_json_otherwise(value: Any, text: str) -> None:
    assert cell_text(value) == text


def test_a_record_becomes_one_line_of_cells() -> None:
    item = make_item(0)
    ((record, columns),) = [
        (found, export_columns(["id", "text"], ["answer", "absent"]))
        for found in records(TABLE, None, [(item, make_output(item, judge=None))])
    ]
    line = dict(zip((column.name for column in columns), cells(record, columns), strict=True))
    assert line == {
        "id": "1",
        "text": "a",
        "meta_work_id": item.work_id,
        "meta_row_index": "0",
        "meta_group_key": "",
        "meta_group_context_id": "",
        "answer": "yes",
        "absent": "",
        "judge_verdict": "",
        "judge_score": "",
        "judge_reasons_json": "",
        "meta_cache_id": record["meta"]["cache_id"],
        "meta_model": "test-model",
        "meta_temperature": "0.5",
        "meta_created_at_utc": "2026-01-02T03:04:05Z",
    }


def test_the_manifest_says_where_each_column_comes_from() -> None:
    manifest = export_manifest(export_columns(["id"], ["id"]), {"psv": "o.psv"}, 3, {"n_missing": 1}, "now")
    assert manifest["meta"] == {"pipeline": 5, "generated_at_utc": "now"}
    assert manifest["counts"] == {"n_records": 3, "n_missing": 1}
    assert manifest["files"] == {"psv": "o.psv"}
    assert {"name": "parsed_id", "from": "parsed.id"} in manifest["columns"]
    assert {"name": "judge_reasons_json", "from": "judge.reasons"} in manifest["columns"]
