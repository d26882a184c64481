"""The one object of an answer: found among prose, and never repaired."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from llmbatch_assets.domain.answer import MAX_ANSWER_CHARS, feedback, read_object, read_verdict, without_thoughts
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.errors import AnswerError
from llmbatch_assets_tests.domain.strategies import JSON, quick
from llmbatch_assets_tests.growth import assert_linear

WHOLE = {"answer": {"text": "a {b} [c]", "sure": True}, "list": [{"x": 1}, []]}
TEXT = json.dumps(WHOLE)


@pytest.mark.parametrize(
    "text",
    [
        # Cut off, with a complete object inside.
        '{"a": {"b": 1}',
        '{"a": {"b": 1}, "c":',
        '{"a": [{"b": 1}, {"b": 2}',
        '{"a": "text", "c": {"b": 1}, "d": "te',
        '```json\n{"a": {"b": 1}\n```',
        'Here it is: {"a": {"b": 1}',
        '{\n  "a": {"b": 1},\n',
        '[{"b": 1}, {"b": 2}',
        '[1, {"b": 1}',
        # Broken around a complete object.
        '{"a": {"b": 1}, }',
        '{"a" {"b": 1}}',
        '{"a": {"b": 1} "c": 2}',
        '{a: {"b": 1}}',
        "{'a': {\"b\": 1}}",
        '{ // the answer\n"a": {"b": 1}}',
        '{a: {"b": 1}',
        # Thoughts without an answer.
        '<think>Perhaps {"b": 1}? Let me see',
        '<thinking>Perhaps {"b": 1}? Let me see',
        '[THINK]Perhaps {"b": 1}? Let me see',
        '<think>a</think><reflection>Perhaps {"b": 1}?',
        '<|channel|>analysis<|message|>Perhaps {"b": 1}? Let me see',
        '<|channel|>analysis<|message|>Perhaps {"b": 1}?<|end|><|start|>assistant',
    ],
)
def test_a_part_of_a_broken_object_is_not_taken_for_the_whole(text: str) -> None:
    with pytest.raises(AnswerError) as reported:
        read_object(text)
    assert reported.value.cause == "not_json"


@quick
@given(st.integers(1, len(TEXT) - 1))
def test_an_answer_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(AnswerError):
        read_object(TEXT[:length])


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 20_000 + "1" + "}" * 20_000,
        '{"a":' * 20_000,
        "[" * 20_000 + "]" * 20_000,
        '{"a": ' + "[" * 20_000 + "]" * 20_000 + "}",
        "{" * 20_000,
        "[{" * 20_000,
        "{ " * 20_000,
        "{x" * 20_000,
        # A number that Python will not read.
        '{"a": ' + "9" * 5_000 + "}",
    ],
    ids=lambda text: f"{text[:12]}...{len(text)}",
)
def test_no_answer_breaks_the_reader(text: str) -> None:
    with pytest.raises(AnswerError):
        read_object(text)


class LLMOutput(BaseModel):
    answer: str


def test_no_depth_breaks_reading_or_validating() -> None:
    # Near the recursion limit, some depths can be read but not written.
    contract = Contract.of(LLMOutput)
    for depth in (*range(1, 1_100), 5_000, 20_000):
        with pytest.raises(AnswerError):
            contract.validate(read_object('{"answer": ' + "[" * depth + "]" * depth + "}"))


@quick
@given(st.one_of(st.text(), st.text(alphabet='{}[]",:0eE.-<think>/\\ \n'), JSON.map(json.dumps)))
def test_any_text_is_an_object_or_an_error_for_the_model(text: str) -> None:
    with contextlib.suppress(AnswerError):
        assert isinstance(read_object(text), dict)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        json.dumps(WHOLE, indent=2),
        f"\n\n  {TEXT}\n",
        f"```json\n{TEXT}\n```",
        f"```\n{TEXT}\n```",
        f"Sure! Here is the answer:\n\n```json\n{TEXT}\n```\nAnything else?",
        f"The answer is {TEXT}. Good luck!",
        f'<think>I could say {{"x": 1}} or []</think>{TEXT}',
        f"\n<think>\n</think>\n\n```json\n{TEXT}\n```",
        f"<think>One</think>\n<think>Two {{</think>\n{TEXT}",
        # Some servers put the opening tag into the prompt.
        f"</think>{TEXT}",
        f'First {{"x": 1}}, no: [\n</think>\n\n{TEXT}',
        f"Hm.</think>```json\n{TEXT}\n```",
        # Other tags, a draft in them, and after one kind another.
        f'<thinking>maybe {{"x": 1}}</thinking>{TEXT}',
        f'<THINKING>maybe {{"x": 1}}</THINKING>{TEXT}',
        f'<thought>maybe {{"x": 1}}</thought>\n{TEXT}',
        f'<reasoning>maybe {{"x": 1}}</reasoning>{TEXT}',
        f'<reflection>maybe {{"x": 1}}</reflection>{TEXT}',
        f'[THINK]maybe {{"x": 1}}[/THINK]{TEXT}',
        f'\u25c1think\u25b7maybe {{"x": 1}}\u25c1/think\u25b7{TEXT}',
        f'<seed:think>maybe {{"x": 1}}</seed:think>{TEXT}',
        f'<|START_THINKING|>maybe {{"x": 1}}<|END_THINKING|>{TEXT}',
        f'<think>a</think>\n<reflection>{{"x": 1}}</reflection>\n{TEXT}',
        f'Maybe {{"x": 1}}[/THINK]{TEXT}',
        # The channels of gpt-oss, as they are and without their special tokens.
        f'<|channel|>analysis<|message|>maybe {{"x": 1}}<|end|><|start|>assistant<|channel|>final<|message|>{TEXT}<|return|>',
        f"<|start|>assistant<|channel|>final <|constrain|>JSON<|message|>{TEXT}<|return|>",
        f'<|channel|>analysis<|message|>{{"x": 1}}<|end|>\n<|channel|>final<|message|>```json\n{TEXT}\n```<|end|>',
        f'analysisWe need {{"x": 1}}.assistantfinal{TEXT}',
        # A byte order mark.
        f"\ufeff{TEXT}",
        # Braces and brackets of prose.
        f"As {{name}} said [1], in [2, 3] and {{few}} words: {TEXT}",
        f"(see {{a, b}}) {TEXT} [end]",
    ],
)
def test_text_around_the_object_is_ignored(text: str) -> None:
    assert read_object(text) == WHOLE


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        # Nothing there.
        ("I would rather not.", "no complete JSON object"),
        ('"text"', "no complete JSON object"),
        ("42", "no complete JSON object"),
        ("null", "no complete JSON object"),
        ("[1, 2]", "no complete JSON object"),
        ('<think>{"a": 1}</think>', "no complete JSON object"),
        ('I could say {"a": 1}.</think>', "no complete JSON object"),
        # A JSON string that contains an object is not an object.
        (json.dumps('{"a": 1}'), "JSON object"),
        (json.dumps(json.dumps('{"a": {"b": 1}}')), "JSON object"),
        # Several objects.
        ('{"a": 1} {"a": 2}', "contains 2 JSON objects"),
        ('{"a": 1}\n{"a": 1}\n{"a": 1}', "contains 3 JSON objects"),
        ('Draft: {"a": 1}. Final: {"a": 2}', "contains 2 JSON objects"),
        # A list of answers is not an answer.
        ('[{"a": 1}]', "is a list"),
        ('[{"a": 1}, {"a": 2}]', "is a list"),
        # Accepted by Python's parser, but not JSON.
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": [Infinity]}', "Infinity is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        # The last of repeated keys would silently win.
        ('{"a": 1, "a": 2}', "key 'a' occurs twice"),
        ('{"x": {"a": 1, "b": 2, "a": 1}}', "key 'a' occurs twice"),
        # Nothing is repaired.
        ('{"a": 1,}', "is broken"),
        ('{"a": "line\nbreak"}', "is broken"),
        ('{"a": True}', "is broken"),
        ('{"a": 01}', "is broken"),
        ("{\"a\": 'b'}", "is broken"),
    ],
)
def test_the_feedback_says_why_an_answer_is_not_one_object(text: str, reported: str) -> None:
    with pytest.raises(AnswerError, match=reported) as refused:
        read_object(text)
    assert refused.value.cause == "not_json"
    assert str(refused.value).endswith("Answer with exactly one JSON object and nothing else.")


@pytest.mark.parametrize("text", ["", " ", "\n\t\u00a0"])
def test_an_empty_answer_is_reported_as_empty(text: str) -> None:
    with pytest.raises(AnswerError, match="is empty") as refused:
        read_object(text)
    assert refused.value.cause == "empty_answer"


@pytest.mark.parametrize(
    "value",
    [
        "<think>x</think>",
        "</think>",
        "a </think> b",
        "[/THINK]",
        "</thinking>",
        "<|channel|>final<|message|>x",
        "assistantfinal",
    ],
)
@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", "\n {}", "<think>y</think>{}"])
def test_think_tags_inside_a_value_are_kept(value: str, around: str) -> None:
    assert read_object(around.replace("{}", json.dumps({"a": value}))) == {"a": value}


@quick
@given(st.dictionaries(st.text(), JSON, max_size=3))
def test_every_object_reads_back_as_it_was(value: dict[str, Any]) -> None:
    assert read_object(json.dumps(value)) == value
    fenced = f"Here:\n```json\n{json.dumps(value, ensure_ascii=False)}\n```"
    # After prose, a closing tag anywhere ends what may have been reasoning.
    if without_thoughts(fenced) == fenced:
        assert read_object(fenced) == value


# Verdicts: accepted only if the judge says so, and with reasons that can be passed on.


@pytest.mark.parametrize(
    ("answer", "min_score", "accepted"),
    [
        # The word decides.
        ({"verdict": "PASS"}, 0, True),
        ({"verdict": "pass"}, 0, True),
        ({"verdict": "FAIL"}, 0, False),
        ({"verdict": "PASSABLE"}, 0, False),
        ({"verdict": ""}, 0, False),
        ({"verdict": "FAIL", "passed": True}, 0, False),
        # Without it, a true flag does, and only a true one.
        *(({name: True}, 0, True) for name in ("pass", "passed", "is_pass", "ok", "success")),
        ({"pass": False}, 0, False),
        ({"ok": "yes"}, 0, False),
        ({"ok": 1}, 0, False),
        ({"verdict": None, "ok": True}, 0, True),
        # No verdict means rejected.
        ({}, 0, False),
        ({"score": 100}, 0, False),
        # The score must also reach the minimum, if one is set.
        ({"verdict": "PASS", "score": 70}, 70, True),
        ({"verdict": "PASS", "score": 69}, 70, False),
        ({"verdict": "PASS", "score": 0}, 0, True),
        ({"verdict": "PASS"}, 1, False),
        ({"verdict": "FAIL", "score": 100}, 1, False),
        # A custom judge model may give a fraction.
        ({"verdict": "PASS", "score": 92.5}, 70, True),
        ({"verdict": "PASS", "score": 69.5}, 70, False),
    ],
)
def test_an_output_is_accepted_if_the_judge_passes_it_with_a_sufficient_score(
    answer: dict[str, Any], min_score: int, accepted: bool
) -> None:
    verdict = read_verdict(answer, min_score)
    assert verdict.accepted is accepted
    assert verdict.answer == answer


def test_a_pass_with_a_low_score_adds_that_to_the_reasons() -> None:
    verdict = read_verdict({"verdict": "PASS", "score": 40, "reasons": ["too short"]}, 70)
    assert verdict.score == 40
    assert verdict.reasons == ["too short", "The score 40 is below 70."]


def test_a_rejection_says_no_more_than_the_judge_did() -> None:
    assert read_verdict({"verdict": "FAIL", "score": 40, "reasons": ["wrong"]}, 70).reasons == ["wrong"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"verdict": "FAIL", "reasons": ["a", "b"]}, "The judge rejected the answer:\n- a\n- b"),
        ({"verdict": "FAIL", "reasons": []}, "The judge rejected the answer:\n- no reason was given"),
        ({"verdict": "FAIL", "reasons": None}, "The judge rejected the answer:\n- no reason was given"),
        ({"verdict": "FAIL"}, "The judge rejected the answer:\n- no reason was given"),
        # One reason, not one per letter.
        ({"verdict": "FAIL", "reasons": "too short"}, "The judge rejected the answer:\n- too short"),
    ],
)
def test_the_feedback_lists_the_reasons(answer: dict[str, Any], expected: str) -> None:
    assert feedback(read_verdict(answer, 0)) == expected


# Time. Answers are read while other calls wait.


def repeated_key(size: int) -> str:
    return "{" + ",".join(f'"k{number}": 1' for number in range(size)) + f',"k{size - 1}": 2}}'


LARGE: dict[str, Callable[[int], str]] = {
    "a repeated key at the end": repeated_key,
    "many keys": lambda size: json.dumps({f"k{number}": number for number in range(size)}),
    "LaTeX": lambda size: "\\frac{a}{b}\n" * size,
    "links": lambda size: "[text](address)\n" * size,
    "citations": lambda size: "[1], [2, p. 3]\n" * size,
    "empty objects": lambda size: "{}\n" * size,
    "brackets that are not closed": lambda size: "[ " * size,
    "braces that are not closed": lambda size: "{" * size,
    "braces before blanks": lambda size: ("{" + " " * 50) * size,
    "blanks": lambda size: " " * 50 * size + "{",
    "thoughts": lambda size: "</think>" + "<think>a</think> " * size + "<think>",
    "beginnings of thoughts": lambda size: "<think>" * size,
    "ends of thoughts": lambda size: "</think>" * size,
    "quotes": lambda size: '{"a": ' + '"' * size,
    "backslashes": lambda size: '{"a": "' + "\\" * size,
}


@pytest.mark.parametrize("name", LARGE)
def test_reading_takes_time_in_proportion_to_the_answer(name: str) -> None:
    def reading(size: int) -> Any:
        text = LARGE[name](size)

        def read() -> None:
            with contextlib.suppress(AnswerError):
                read_object(text)

        return read

    assert_linear(reading, 5_000)


def test_a_repeated_key_is_found_and_named_among_many() -> None:
    with pytest.raises(AnswerError, match="The key 'k19999' occurs twice"):
        read_object(repeated_key(20_000))


def test_a_long_repeated_key_is_cut_in_the_message() -> None:
    key = "k" * 100_000
    with pytest.raises(AnswerError) as reported:
        read_object(f'{{"{key}": 1, "{key}": 2}}')
    assert len(str(reported.value)) < 300


@pytest.mark.parametrize("prose", ["\\frac{a}{b} ", "[text](address) ", "[1], [22] ", "{name}, "])
def test_an_object_is_found_after_much_prose_with_brackets(prose: str) -> None:
    assert read_object(prose * 5_000 + '{"a": 1}') == {"a": 1}


def test_an_answer_that_no_model_writes_is_not_read() -> None:
    with pytest.raises(AnswerError) as reported:
        read_object('{"a": "' + "x" * MAX_ANSWER_CHARS + '"}')
    assert reported.value.cause == "too_large"
    assert read_object('{"a": "' + "x" * (MAX_ANSWER_CHARS - 10) + '"}')
