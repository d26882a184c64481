"""Templates: filled in one pass, strict about placeholders, and identified by their messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.placeholders import GENERATION_NAMES
from llmbatch_assets.domain.prompt import (
    Example,
    Message,
    PromptTemplate,
    fill_placeholders,
    placeholders_in,
)
from llmbatch_assets.errors import InputError, PromptError
from llmbatch_assets_tests.domain.strategies import TEXTS, quick

NAMES = ("context", "llm_schema", "a", "B_2")
# Any text, and especially parts of templates.
INSERTED = st.one_of(
    st.sampled_from(["{context}", "{{", "}}", "{", "}", "{{context}}", "{a}{a}", '{"a": {"b": {}}}', "\\1", "%s"]),
    st.text(),
)
# Pieces of templates, each with its rendered text.
PLAIN = TEXTS.filter(lambda text: not set("{}") & set(text))
PIECES = st.recursive(
    st.one_of(
        PLAIN.map(lambda text: (text, text)),
        st.sampled_from(NAMES).map(lambda name: (f"{{{name}}}", f"<{name}>")),
        # Single braces that hold no name are literal.
        st.sampled_from(["{ a }", "{}", "{a b}", "{a-b}", '{"a": 1}']).map(lambda text: (text, text)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: ("".join(p[0] for p in parts), "".join(p[1] for p in parts))),
        inner.map(lambda part: ("{{ " + part[0] + " }}", "{ " + part[1] + " }")),
    ),
    max_leaves=8,
)


@quick
@given(st.fixed_dictionaries(dict.fromkeys(NAMES, INSERTED)))
def test_an_inserted_value_is_never_read_as_a_placeholder(values: Mapping[str, str]) -> None:
    template = "{a}|{context}|{{{B_2}}}|{llm_schema}{a}"
    expected = f"{values['a']}|{values['context']}|{{{values['B_2']}}}|{values['llm_schema']}{values['a']}"
    assert fill_placeholders(template, values) == expected


@quick
@given(PIECES)
def test_a_template_becomes_what_its_writer_means(piece: tuple[str, str]) -> None:
    template, expected = piece
    assert fill_placeholders(template, {name: f"<{name}>" for name in NAMES}) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        # Doubled braces come in pairs ...
        ("{{context}}", "{context}"),
        ("{{{context}}}", "{V}"),
        ('{{"a": {{"b": {context}}}}}', '{"a": {"b": V}}'),
        # ... and unpaired ones belong to JSON that nobody escaped.
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ('{"a": {"b": {context}}}', '{"a": {"b": V}}'),
        ('{"a": {"b": {"c": 1}}} {context}', '{"a": {"b": {"c": 1}}} V'),
        ("}} {{", "}} {{"),
        ("{{ {context}", "{{ V"),
        # A pair after stray ones is still a pair.
        ('{"a": {"b": 1}} {{x}}', '{"a": {"b": 1}} {x}'),
        # A placeholder consists of letters, digits and underscores.
        ("{ context }", "{ context }"),
        ("{context!r} {context:>3} {context.a}", "{context!r} {context:>3} {context.a}"),
        ("{}", "{}"),
        ("{context", "{context"),
        ("", ""),
    ],
)
def test_braces_are_placeholders_pairs_or_literal(template: str, expected: str) -> None:
    assert fill_placeholders(template, {"context": "V"}) == expected


def test_nothing_renders_as_nothing() -> None:
    assert fill_placeholders("[{a}]", {"a": None}) == "[]"


def test_placeholders_are_listed_in_order_and_doubled_braces_are_none() -> None:
    assert placeholders_in("{b} {{c}} {a} {b} {{{d}}}") == ["b", "a", "b", "d"]


def template(**changes: Any) -> PromptTemplate:
    """A prompt with two messages."""
    return PromptTemplate(**{"path": "prompts/p.yaml", "system": "Be {a}.", "user": "{context}"} | changes)


def test_all_placeholders_without_a_value_are_reported_in_one_error() -> None:
    broken = template(system="{zzz} {context}", user="{aaa} {a}", assistant_prefix="{mmm}")
    with pytest.raises(PromptError) as reported:
        broken.render({"context": "x", "a": "y"})
    assert "prompts/p.yaml: unknown placeholder {aaa}, {mmm}, {zzz}. Known placeholders: {a}, {context}." in str(
        reported.value
    )
    assert "{{aaa}}" in str(reported.value)
    with pytest.raises(KeyError):
        broken.render({})
    with pytest.raises(InputError):
        broken.check(GENERATION_NAMES)


def test_messages_come_in_the_order_of_a_conversation() -> None:
    shown = template(examples=(Example(user="u {a}", assistant='{"x": 1}'),), assistant_prefix="{{")
    assert shown.render({"context": "C", "a": "A"}) == (
        Message("system", "Be A."),
        Message("user", "u A"),
        Message("assistant", '{"x": 1}'),
        Message("user", "C"),
        Message("assistant", "{{"),
    )


@pytest.mark.parametrize("empty", [None, ""])
def test_a_message_without_text_is_not_sent(empty: str | None) -> None:
    assert [message.role for message in template(system=empty, assistant_prefix=empty).render({"context": "x"})] == [
        "user"
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"system": "Be very {a}."},
        {"system": None},
        {"user": "{context}\n"},
        {"assistant_prefix": "{"},
        {"examples": (Example(user="u", assistant="a"),)},
        # The same text in another role.
        {"system": None, "user": "Be {a}.", "assistant_prefix": "{context}"},
    ],
)
def test_another_message_is_another_prompt(changes: dict[str, Any]) -> None:
    assert template(**changes).sha != template().sha


@pytest.mark.parametrize("changes", [{"name": "n"}, {"version": 2}, {"purpose": "p"}, {"path": "elsewhere.yaml"}])
def test_what_is_written_for_people_does_not_identify_a_prompt(changes: dict[str, Any]) -> None:
    assert template(**changes).sha == template().sha


def test_the_identity_of_a_prompt_is_a_contract() -> None:
    assert template().sha == "36723002733be711f1d2cb9a9ed4fbf6fc4f4679"


def test_only_missing_placeholders_are_appended_under_their_headings() -> None:
    judge = template(user="Judge {context}\n\n").with_appended({"context": "The input:", "output_json": "The answer:"})
    assert judge.user == "Judge {context}\n\nThe answer:\n{output_json}"
    # Placeholders count in any message; doubled braces do not.
    everywhere = template(system="{context} {output_json}", user="Judge")
    assert everywhere.with_appended({"context": "I:", "output_json": "A:"}) == everywhere
    assert template(user="{{context}}").with_appended({"context": "I:"}).user == "{{context}}\n\nI:\n{context}"


@pytest.mark.parametrize("content", [{}, {"user": ""}, {"user": "x", "sytem": "y"}])
def test_a_prompt_without_a_user_message_or_with_unknown_keys_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        PromptTemplate.model_validate({"path": "p", **content})
