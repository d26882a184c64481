"""Warnings about prompts: every habit from other tools is noticed, and no JSON example is."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.prompt_warnings import prompt_warnings
from llmbatch_assets_tests.domain.strategies import parameters

COLUMNS = ["Text", "Customer name", "customer-id", "label", "row"]
SHOWS_ALL = "{llm_schema} {context} "


def warnings(user: str, judge: str | None = None, read: Parameters | None = None, **texts: Any) -> list[str]:
    """Return the warnings about a generation prompt and a judge's."""
    asking = PromptTemplate(path="g.yaml", user=user, **texts)
    judging = PromptTemplate(path="j.yaml", user=judge) if judge else None
    return prompt_warnings(asking, judging, read or parameters(), COLUMNS)


@pytest.mark.parametrize(
    ("written", "sent", "meant"),
    [
        # Mustache and Jinja.
        ("{{ Text }}", "as `{ Text }`", "Text"),
        ("{{Text}}", "as `{Text}`", "Text"),
        ("{{ row.Text }}", "as `{ row.Text }`", "Text"),
        ("{{ context | upper }}", "as `{ context | upper }`", "context"),
        ("{{ Customer name }}", "as `{ Customer name }`", '"Customer name"'),
        # Blanks, names that need quotes, attributes and formats of Python.
        ("{ context }", "unchanged", "context"),
        ('{ "Customer name" }', "unchanged", '"Customer name"'),
        ("{Customer name}", "unchanged", '"Customer name"'),
        ("{customer-id}", "unchanged", '"customer-id"'),
        ("{context.text}", "unchanged", "context"),
        ("{ticket.Text}", "unchanged", "Text"),
        ("{item['Text']}", "unchanged", "Text"),
        ("{Text!r}", "unchanged", "Text"),
        ("{Text:>20}", "unchanged", "Text"),
        # Other marks.
        ("%(Text)s", "unchanged", "Text"),
        ("<context>", "unchanged", "context"),
        ("\uff5bText\uff5d", "unchanged", "Text"),
        ("{{Text}", "unchanged", "Text"),
    ],
)
def test_a_placeholder_as_other_tools_write_it_is_reported(written: str, sent: str, meant: str) -> None:
    (told,) = warnings(f"{{llm_schema}} Classify: {written}\nNow. {{label}}")
    assert told == f"g.yaml: `{written}` is sent {sent}; write {{{meant}}} to insert the value"


@pytest.mark.parametrize(
    ("text", "written", "meant"),
    [
        ("Classify {Text", "{Text", "Text"),
        ('Classify {Text\nAs JSON: {"a": 1}', "{Text", "Text"),
        ("Classify {Text) now", "{Text", "Text"),
        ('Classify {"Customer name" now', '{"Customer name"', '"Customer name"'),
        ("Classify [Text} now", "Text}", "Text"),
    ],
)
def test_half_a_pair_of_braces_is_reported(text: str, written: str, meant: str) -> None:
    (told,) = warnings(SHOWS_ALL + text)
    assert told == f"g.yaml: `{written}` is sent unchanged; write {{{meant}}} to insert the value"


@pytest.mark.parametrize(
    "text",
    [
        # JSON and schemas with the names of columns as keys, escaped or not.
        '{{"label": "a"}}',
        '{"label": "a", "Text": {"row": [1, {}]}}',
        '{"label": {Text}}',
        "{label: string, Text: string}",
        "{\n  label: 1,\n  Text: 2\n}",
        "{{}} {} {1} {a|b} {yes, no}",
        # Marked-up prompts and answers.
        "<Text>{Text}</Text> <label>",
        "<context>{context}</context>",
        # Prices, percentages, and words in other brackets.
        "${Text} 100% (Text) [Text] \\textbf{x}",
        "{{{Text}}}",
        # Not the name of anything.
        "{{ value }} {value.text} %(value)s {value",
    ],
)
def test_braces_that_mean_themselves_are_not_reported(text: str) -> None:
    assert warnings(SHOWS_ALL + text, assistant_prefix='{"Text": "') == []


def test_statements_of_template_languages_are_reported() -> None:
    for written in ("{% for one in rows %}", "{{#each rows}}"):
        (told,) = warnings(f"{SHOWS_ALL}{written} x")
        assert told == f"g.yaml: `{written}` is sent unchanged: prompts support placeholders, but not statements"


def test_a_dollar_sign_is_reported_before_placeholders_that_are_no_price() -> None:
    (told,) = warnings("{llm_schema} ${context}")
    assert told == "g.yaml: the dollar sign of `${context}` is sent, too; write {context}"


def test_each_text_is_reported_once_and_with_its_file() -> None:
    told = warnings(SHOWS_ALL + "{{ Text }} {{ Text }}", "{output_json} { output_json } {context}")
    assert [one.split(" is sent")[0] for one in told] == ["g.yaml: `{{ Text }}`", "j.yaml: `{ output_json }`"]
    # The output is not known before it is judged.
    assert warnings(SHOWS_ALL + "{ output_json }") == []


@pytest.mark.parametrize(
    ("user", "reported"),
    [
        ("{context}", None),
        ("{row}", 'write {"row"} for the column'),
        ("{group_context} {Text}", None),
        ("{Text}", None),
        ("", "every call asks the same question"),
        ("{{context}}", "every call asks the same question"),
        ("{group_context}", "the group but not the row"),
    ],
)
def test_a_prompt_that_is_the_same_for_all_items_is_reported(user: str, reported: str | None) -> None:
    grouping = {"enabled": True, "column": "label", "mode": "row_output_with_group_context"}
    told = [one for one in warnings("{llm_schema}" + user, read=parameters(grouping=grouping)) if "is sent" not in one]
    assert [str(reported) in one for one in told] == ([True] if reported else [])


def test_placeholders_that_are_always_empty_are_reported_for_both_prompts() -> None:
    read = parameters(grouping={"enabled": True, "column": "label", "mode": "group_output"})
    told = warnings("{llm_schema} {context} {group_context} {judge_schema}", "{group_context} {context}", read)
    assert told == [
        "g.yaml: {group_context} is always empty with grouping.mode group_output",
        "g.yaml: {judge_schema} is always empty because prompts.judge.enabled is false",
        "j.yaml: {group_context} is always empty with grouping.mode group_output",
    ]


def test_the_templates_of_rows_and_groups_are_looked_at_as_well() -> None:
    context = {
        "row_template": "{{ Text }} {label} {__ROW_KV_BLOCK__} {{ group_key }}",
        "group_header_template": "{{ group_key }} {n_rows} {{ Text }}",
        "group_footer_template": "{ n_rows }",
    }
    assert warnings(SHOWS_ALL, read=parameters(context=context)) == [
        "context.row_template: `{{ Text }}` is sent as `{ Text }`; write {Text} to insert the value",
        "context.group_header_template: `{{ group_key }}` is sent as `{ group_key }`; write {group_key} to insert the value",
        "context.group_footer_template: `{ n_rows }` is sent unchanged; write {n_rows} to insert the value",
    ]


def test_a_table_with_thousands_of_columns_takes_no_longer() -> None:
    # Each text in braces was compared with each column: half a minute.
    columns = [f"column {number}" for number in range(17_000)]
    prompt = PromptTemplate(path="g.yaml", user=SHOWS_ALL + '{"a": {"b": 1}} {x, y} <b>x</b>\n' * 200)
    started = time.monotonic()
    assert prompt_warnings(prompt, None, parameters(), columns) == []
    assert time.monotonic() - started < 5
