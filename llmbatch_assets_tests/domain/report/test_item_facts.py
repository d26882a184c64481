"""The page of an item in Dagster: everything about it, in bounded tables, and nothing of it taken for Markdown."""

from __future__ import annotations

import re

from llmbatch_assets.domain.report.item_facts import (
    ANSWER_CHARS,
    INPUT_CHARS,
    MAX_FIELDS,
    OUTPUT_CHARS,
    answer_beginning,
    failure_line,
    failure_table,
    input_table,
    item_table,
    output_table,
)
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets_tests.domain.strategies import make_failure, make_item, make_output
from llmbatch_assets_tests.growth import assert_linear

ITEM = make_item(2, "red", label="Item 2")
PAID = TokenUsage(requests=3, input_tokens=1200, cached_input_tokens=200, output_tokens=30, cost_usd=0.00123456)


def test_an_item_is_named_as_in_its_table_and_costs_what_all_its_attempts_cost() -> None:
    table = item_table(ITEM, make_output(ITEM), PAID, hit=False)
    for line in (
        "| Label | Item 2 |",
        "| Row | 3 (row_index 2) |",
        "| Group | red |",
        "| Verdict | PASS, score 90 |",
        "| Reasons | fine |",
        "| Attempts | 1 |",
        "| Cost | $0.001235 |",
        "| Tokens | 1,200 input, 30 output (200 of the input cached) |",
        "| Latency | 1.5 s |",
        "| Source | generated |",
    ):
        assert line in table
    assert "| Source | cache |" in item_table(ITEM, make_output(ITEM), PAID, hit=True)


def test_unknown_facts_are_left_out() -> None:
    group = make_item(0, "red", label="red", row_index=None, meta={"row_indices": [0, 3, 4]})
    table = item_table(group, make_output(group, judge=None), TokenUsage(), hit=False)
    assert "| Rows in the group | 3 |" in table
    assert not re.search(r"\| (Row|Group|Verdict|Reasons) \|", table)
    assert "None" not in table


def test_columns_of_the_default_template_become_a_table() -> None:
    table = input_table("id: DS-01\nempty:\nnote: first\n  second: line\nurl: http://x")
    assert table.splitlines()[2:] == [
        "| id | DS-01 |",
        "| empty |  |",
        "| note | first second: line |",
        "| url | http://x |",
    ]


def test_text_of_another_template_is_shown_as_it_is() -> None:
    assert input_table("Please answer\nthis: now") == "```\nPlease answer\nthis: now\n```"
    assert input_table("") == "```\n\n```"
    assert len(input_table("long " * INPUT_CHARS)) < INPUT_CHARS + 50


def test_outputs_are_tables_of_their_fields_with_nested_values_as_json() -> None:
    table = output_table({"text": "a | b", "tags": ["x", 1], "sure": True, "none": None})
    assert table.splitlines()[2:] == [
        "| none | null |",
        "| sure | true |",
        r'| tags | \["x",1\] |',
        r"| text | a \| b |",
    ]


def test_long_outputs_are_cut_and_say_so() -> None:
    many = output_table({f"field{n}": "word " * 100 for n in range(200)})
    assert len(many) < OUTPUT_CHARS + MAX_FIELDS * 60
    assert "…\\[cut\\]" in many
    assert f"{200 - MAX_FIELDS} more" in many


def test_a_failure_has_its_cause_and_a_remedy() -> None:
    judge = {"reasons": ["too short", "wrong"], "verdict": "FAIL"}
    table = failure_table(make_failure(ITEM, "judge_rejected", judge=judge), "Made with earlier settings", PAID)
    for part in ("| Cause | judge_rejected |", "lower judge.min_score", "too short; wrong", "| Cost | $0.001235 |"):
        assert part in table
    assert "| Output shown here | Made with earlier settings |" in table
    assert "Output shown here" not in failure_table(make_failure(ITEM), "", PAID)


def test_a_failure_is_one_line_of_a_log_whatever_its_message() -> None:
    failure = make_failure(ITEM, error={"type": "AnswerError", "message": "two\nlines \x1b[31mred" + "x" * 9999})
    line = failure_line(ITEM, failure)
    assert line.startswith(f"{ITEM.partition_key} failed after 1 attempt: schema_mismatch: two lines \\x1b[31mred")
    assert "\n" not in line
    assert len(line) < 700


def test_only_the_beginning_of_an_answer_is_shown_and_none_for_none() -> None:
    answer = answer_beginning(make_failure(ITEM, raw_text="```\x1b" + "y" * 99_999))
    assert answer.startswith("````\n```\\x1by")
    assert len(answer) < ANSWER_CHARS + 50
    assert [answer_beginning(make_failure(ITEM, raw_text=text)) for text in (None, "", " \n")] == ["", "", ""]


def test_a_cell_of_many_lines_takes_time_in_proportion_to_them() -> None:
    assert_linear(lambda size: lambda: input_table("text: a\n" + f"  {'word ' * 20}\n" * size), 5_000)
