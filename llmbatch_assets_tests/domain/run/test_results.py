"""The first results of a run, and names by which ``llmbatch show`` finds their items."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.domain.items.identity import partition_key
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt, ItemResult
from llmbatch_assets.domain.run.results import FirstResults, ItemNames, result_rows
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.stages.show import find_item


def item(row: int, label: str = "", context: str = "text", **meta: Any) -> WorkItem:
    work_id = f"{row:016x}" + "0" * 24
    return WorkItem(work_id, partition_key(label, work_id), None, row, None, context, meta, label)


def group(key: str, rows: list[int]) -> WorkItem:
    work_id = f"{rows[0]:016x}" + "0" * 24
    return WorkItem(work_id, partition_key(key, work_id), key, None, None, "text", {"row_indices": rows}, key)


def accepted(of: WorkItem, **parsed: Any) -> ItemResult:
    output = AcceptedOutput(meta={}, parsed=parsed, judge=None, usage=TokenUsage(), latency_sec=0)
    return ItemResult(of, 1, TokenUsage(), accepted=output)


def failed(of: WorkItem, message: str) -> ItemResult:
    values: dict[str, Any] = {
        "meta": {},
        "error": {"message": message},
        "class": "answer",
        "cause": "not_json",
        "raw_text": None,
    }
    values |= {"feedback": None, "judge": None, "usage": TokenUsage(), "latency_sec": 0}
    return ItemResult(of, 3, TokenUsage(), failed=FailedAttempt.model_validate(values))


def test_the_first_in_the_table_are_kept_in_whatever_order_items_end() -> None:
    first = FirstResults(3)
    for row in (7, 2, 9, 0, 5):
        first.add(accepted(item(row)))
    assert [one.item.row_index for one in first.kept] == [0, 2, 5]
    assert first.n_others == 2
    groups = FirstResults(1)
    for rows in ([4, 5], [1, 9]):
        groups.add(accepted(group(f"g{rows[0]}", rows)))
    assert groups.kept[0].item.group_key == "g1"


def test_fields_are_in_the_order_of_the_schema_and_further_ones_follow() -> None:
    one = item(0)
    (row,) = result_rows(
        [accepted(one, extra=1, tags=["a", "é"], answer="yes", sure=True)], [one], ["answer", "tags", "sure"]
    )
    assert list(row.outputs.items()) == [("answer", "yes"), ("tags", '["a", "é"]'), ("sure", "true"), ("extra", "1")]


def test_the_columns_that_the_prompt_names_are_shown_without_the_one_that_is_the_name() -> None:
    named = item(0, "q1", columns={"id": "q1", "question": "How tall?"})
    plain = item(1, "q2", "id: q2\nquestion: How long?")
    results = [accepted(one) for one in (named, plain)]
    rows = result_rows(results, [named, plain], [], shows_context=False)
    assert [row.inputs for row in rows] == [{"question": "How tall?"}, {"input": "id: q2 question: How long?"}]
    # The prompt shows the text of the item, too.
    assert [*result_rows(results, [named, plain], [])[0].inputs] == ["question", "input"]


def test_every_text_is_on_one_line_with_escapes_for_what_a_terminal_acts_on() -> None:
    one = item(0, columns={"a\x1b": "x\n\x1b[2J"})
    ok, bad = result_rows(
        [accepted(one, **{"b\x07": "y\r\n\x9b1m\u202e"}), failed(one, "no\nJSON\x1b")], [one], [], shows_context=False
    )
    assert ok.inputs == {r"a\x1b": r"x \x1b[2J"}
    assert ok.outputs == {r"b\x07": r"y \x9b1m\u202e"}
    assert (bad.failure, bad.outputs) == (r"not_json: no JSON\x1b", {})


def test_a_failure_does_not_repeat_a_key() -> None:
    one = item(0)
    (row,) = result_rows([failed(one, "the key secret-key is wrong")], [one], [], {"secret-key"})
    assert row.failure == "not_json: the key [key] is wrong"


ITEMS = [
    item(0, "T-8"),
    item(1, "twice"),
    item(2, "twice"),
    # A label that is the row index of another item with no plain label of its own.
    item(3, "4"),
    item(4, "Who built the bridge?"),
    item(5, "-v"),
    item(6),
    item(7, "7."),
    item(8, "e\u0301"),
    item(9, "9!"),
    item(10, "9"),
]


NAMES = ["T-8", "1", "2", "4", ITEMS[4].partition_key, "5", "6", "7.", "8", ITEMS[9].partition_key, "9"]


@pytest.mark.parametrize(("of", "name"), list(zip(ITEMS, NAMES, strict=True)))
def test_a_name_is_short_and_finds_its_item(of: WorkItem, name: str) -> None:
    assert ItemNames(ITEMS).of(of) == name
    assert find_item(ITEMS, name, lambda work_id: work_id).item == of


def test_groups_are_named_by_their_key_or_else_by_their_partition() -> None:
    groups = [group("red", [0, 1]), group("light blue", [2])]
    names = ItemNames(groups)
    assert [names.of(one) for one in groups] == ["red", groups[1].partition_key]
    assert [find_item(groups, names.of(one), lambda work_id: work_id).item for one in groups] == groups
