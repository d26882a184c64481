"""The manifest of an export: counts that add up, column origins, and a harmless preview."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.domain.export.columns import OutputField, export_columns
from llmbatch_assets.domain.export.manifest import (
    ExportManifest,
    ExportMeta,
    column_list,
    export_counts,
    export_notes,
    has_model_records,
    preview,
)


def manifest(
    items: dict[str, int], lines: dict[str, int], changes: dict[str, dict[str, int]], *set_aside: str
) -> ExportManifest:
    return ExportManifest(
        meta=ExportMeta(generated_at_utc="now", provider="openai"),
        columns=column_list(export_columns(["id"], [OutputField(("id",), "integer")])),
        counts=export_counts(items, lines),
        changes=changes,
        files={"psv": "o.psv"},
        not_exported_file="left.csv",
        set_aside_files=list(set_aside),
    )


def test_the_manifest_has_origin_and_type_of_each_column() -> None:
    made = manifest(
        {"exported": 3, "missing": 1}, {"exported": 3, "missing": 1}, {"csv": {"formulas_escaped": 2}}
    ).model_dump()
    assert made["meta"] == {"pipeline": 5, "generated_at_utc": "now", "provider": "openai", "fingerprint": ""}
    assert made["files"] == {"psv": "o.psv"}
    assert made["not_exported_file"] == "left.csv"
    assert made["changes"] == {"csv": {"formulas_escaped": 2}}
    assert {"name": "parsed_id", "from": "parsed.id", "type": "integer"} in made["columns"]
    assert {"name": "judge_reasons_json", "from": "judge.reasons", "type": "json"} in made["columns"]


def test_counts_add_up() -> None:
    items = {"exported": 4, "failed": 3, "missing": 2, "outdated": 1}
    counts = export_counts(items, {"exported": 9, "failed": 3, "missing": 2, "outdated": 1, "row_beyond_cap": 5})
    assert counts["n_items"] == 10 == sum(counts[f"n_{state}"] for state in items)
    assert (counts["n_records"], counts["n_not_exported"], counts["n_rows_beyond_cap"]) == (9, 11, 5)


def test_notes_list_only_counts_and_changes_that_are_not_zero() -> None:
    assert export_notes(manifest({"exported": 1}, {"exported": 1}, {"csv": {"formulas_escaped": 1}})) == []
    made = manifest({"failed": 2}, {"failed": 2}, {"xlsx": {"cut_at_32767_characters": 3}}, "output_earlier.csv")
    missing, cut, aside = export_notes(made)
    assert missing == "not exported: 2 failed items; see left.csv"
    assert (cut[:15], cut[-3:]) == ("xlsx: cells cut", ": 3")
    assert "output_earlier.csv" in aside


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({}, False),
        ({"counts": {"n_records": 0}, "meta": {}}, False),
        ({"counts": {"n_records": 2}, "meta": {"provider": "offline"}}, False),
        ({"counts": {"n_records": 2}, "meta": {"provider": "openai"}}, True),
    ],
)
def test_an_export_with_records_of_a_model_has_model_records(before: dict[str, Any], expected: bool) -> None:
    assert has_model_records(before) is expected


def test_cells_of_the_preview_cannot_change_the_page() -> None:
    columns = export_columns(["=a|b"], [])[:1]
    shown = preview(columns, [["<img src=x>`|`[x](y)\n# z" + "w" * 99], [None], [1.5]]).splitlines()
    assert len(shown) == 5
    assert shown[:2] == ["| `=a/b` |", "| --- |"]
    assert shown[2].startswith("| `<img src=x>'/'[x](y) # zww")
    assert shown[2].endswith("…` |")
    assert shown[3:] == ["|  |", "| `1.5` |"]
