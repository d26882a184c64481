"""Differences between prompts, schemas and configurations, as shown to users."""

from __future__ import annotations

from llmbatch_assets.domain.plan.difference import (
    MOST_LINES,
    UNKNOWN,
    ChangedValue,
    Differences,
    changed_values,
    prompt_lines,
    schema_fields,
)


def test_a_prompt_diff_shows_added_and_removed_lines() -> None:
    assert prompt_lines({"user": "one\ntwo"}, {"user": "one\ntwo"}) == []
    assert prompt_lines({"user": "one\ntwo"}, {"user": "one\nthree"})[-2:] == ["-two", "+three"]
    assert prompt_lines(None, {"user": "one"})[1:] == ["+[user]", "+one"]
    assert f"-({UNKNOWN})" in prompt_lines({}, {"user": "one"})


def test_very_long_prompts_are_shown_in_full() -> None:
    text = "\n".join(map(str, range(MOST_LINES + 1)))
    lines = prompt_lines({"user": text}, {"user": text + "\nmore"})
    assert len(lines) == 2 * (MOST_LINES + 2) + 1


def test_values_are_compared_under_dotted_keys() -> None:
    before, now = {"a": {"b": 1, "c": True}, "d": "x"}, {"a": {"b": 2, "c": 1}, "e": {}}
    assert changed_values(before, now) == [
        ChangedValue("a.b", "1", "2"),
        ChangedValue("a.c", "true", "1"),
        ChangedValue("d", "x", None),
        ChangedValue("e", None, "{}"),
    ]
    assert changed_values(None, None) == []


def test_schema_fields_are_listed_by_name() -> None:
    part = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
    schema = {"properties": {"answer": {"maxLength": 80}}, "required": ["answer"], "$defs": {"Part": part}}
    fields = schema_fields(schema)
    assert fields == {
        "answer": {"maxLength": 80},
        "required": ["answer"],
        "Part": {"n": {"type": "integer"}, "required": ["n"]},
    }


def test_empty_differences_are_false() -> None:
    nothing = Differences("sha", None, [], [], [], [])
    assert not nothing
    assert nothing._replace(prompt=["+a"])
