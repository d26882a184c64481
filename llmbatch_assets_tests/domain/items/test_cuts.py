"""Text that a limit keeps from the model is reported, with the number of items or groups."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.domain.items.grouping import plan_work
from llmbatch_assets_tests.domain.strategies import parameters, snapshot

ROWS = [["1", "red", "x" * 50], ["2", "red", "short"], ["3", "blue", "y" * 50]]
LEFT_OUT = "leaves 1 row out of 1 of 2 groups ('red'); raise it, or set 0 for no limit"
REST = "the model does not see the rest; raise it, or set 0 for no limit"


def grouped(mode: str, **changes: Any) -> dict[str, Any]:
    return {"enabled": True, "column": "team", "mode": mode, **changes}


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ({}, []),
        ({"context": {"max_context_chars": 1_000, "truncate_field_chars": 50}}, []),
        (
            {"context": {"max_context_chars": 60}},
            [f"context.max_context_chars (60) cuts the text of 2 of 3 items (row 1, row 3): {REST}"],
        ),
        (
            {"context": {"truncate_field_chars": 40}},
            [f"context.truncate_field_chars (40) cuts values of 'text' in 2 of 3 items (row 1, row 3): {REST}"],
        ),
        (
            {"context": {"max_context_chars": 100}, "grouping": grouped("group_output")},
            [f"context.max_context_chars (100) cuts the text of 1 of 2 groups ('red'): {REST}"],
        ),
        (
            {"context": {"max_context_chars": 100}, "grouping": grouped("row_output_with_group_context")},
            [f"context.max_context_chars (100) cuts the text of 1 of 2 groups ('red'): {REST}"],
        ),
        *(
            (
                {"grouping": grouped(mode, max_rows_per_group=1)},
                [f"grouping.max_rows_per_group (1) {LEFT_OUT}"],
            )
            for mode in ("group_output", "row_output_with_group_context")
        ),
    ],
)
def test_each_limit_that_cuts_is_reported(blocks: dict[str, Any], told: list[str]) -> None:
    plan = plan_work(snapshot(ROWS, ["id", "team", "text"]), parameters(**blocks))
    assert plan.warnings == told


def test_only_the_first_items_are_named() -> None:
    rows = [[str(number), "red", "x" * 50] for number in range(9)]
    (told,) = plan_work(snapshot(rows, ["id", "team", "text"]), parameters(context={"max_context_chars": 9})).warnings
    assert "9 of 9 items (row 1, row 2, row 3, row 4, row 5, ...)" in told
