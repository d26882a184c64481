"""Parse model answers: the one JSON object of an output, and the verdict of a judge."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Container
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

from llmbatch_assets.domain.text import cut
from llmbatch_assets.errors import AnswerError, FailureCause

# The tags around a model's reasoning: most models, Mistral, Kimi, Seed, Cohere.
_THOUGHT_TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<reflection>": "</reflection>",
    "[think]": "[/think]",
    "\u25c1think\u25b7": "\u25c1/think\u25b7",
    "<seed:think>": "</seed:think>",
    "<|start_thinking|>": "<|end_thinking|>",
}
_OPENING = re.compile(r"\s*(" + "|".join(map(re.escape, _THOUGHT_TAGS)) + ")", re.IGNORECASE)
# Some servers put the opening tag into the prompt, so that an answer has only the closing one. In an answer that begins
# as JSON or as a fence, the tag is part of a value.
_UNOPENED = re.compile(
    r"\A(?!\s*[{`]).*?(?:" + "|".join(map(re.escape, _THOUGHT_TAGS.values())) + ")", re.DOTALL | re.IGNORECASE
)
# The channels of gpt-oss (harmony), with its special tokens or without them.
_CHANNELS = re.compile(r"\A\s*(?:<\|start\|>assistant)?<\|channel\|>|\Aanalysis(?=.*assistantfinal)", re.DOTALL)
_FINAL_CHANNEL = re.compile(r"<\|channel\|>\s*final\b(?:[^<]|<\|constrain\|>)*<\|message\|>|assistantfinal")
_END_OF_CHANNEL = re.compile(r"<\|(?:end|return|start|call)\|>")
_OBJECT_START = re.compile(r'[{\[]\s*["{\[]')
_BRACKET = re.compile(r"[{\[]")
# Prose can have many brackets, as in LaTeX and Markdown. Decoding at one takes time in proportion to the text before it.
_VALUE_START = re.compile(r'\{\s*["}]|\[\s*(?:["{\[\]\d-]|true|false|null|NaN|Infinity)')
_MOST_BROKEN = 1_000
# Maximum length of a key in a message to the model, since the message becomes part of the next prompt.
_KEY_CHARS = 100
# More than any model writes. Reading a longer answer would keep other calls waiting.
MAX_ANSWER_CHARS = 2_000_000
ONE_OBJECT = "Answer with exactly one JSON object and nothing else."
# Verdict fields that mean PASS if they are true.
PASS_WORDS = ("pass", "passed", "is_pass", "ok", "success")


class Verdict(BaseModel):
    """A parsed judge's answer."""

    model_config = ConfigDict(frozen=True)

    accepted: bool
    score: float | None
    reasons: list[str]
    answer: dict[str, Any]


def read_object(text: str) -> dict[str, Any]:
    """Return the one JSON object of an answer, ignoring thoughts, code fences and prose around it.

    Raises ``AnswerError`` for no object, several objects, a list, a repeated key or NaN. Nothing is repaired.
    """
    if len(text) > MAX_ANSWER_CHARS:
        raise AnswerError(
            FailureCause.TOO_LARGE,
            f"The answer has {len(text):,} characters. Give one of at most {MAX_ANSWER_CHARS:,}.",
        )
    if not text.strip():
        raise AnswerError(FailureCause.EMPTY_ANSWER, f"The answer is empty. {ONE_OBJECT}")
    spoken = without_thoughts(text)
    opened = _OPENING.match(spoken)
    if opened:
        raise _not_json(f"The answer ends inside its {opened[1]} block.")
    if _CHANNELS.match(spoken):
        raise _not_json("The answer ends before its final channel.")
    found = _objects(spoken)
    if not found:
        raise _not_json("The answer contains no complete JSON object.")
    if len(found) > 1:
        raise _not_json(f"The answer contains {len(found)} JSON objects.")
    return found[0]


def without_thoughts(text: str) -> str:
    """Remove the reasoning at the beginning of an answer: blocks in tags, or all channels but the final one."""
    if _CHANNELS.match(text):
        finals = list(_FINAL_CHANNEL.finditer(text))
        return _END_OF_CHANNEL.split(text[finals[-1].end() :], 1)[0] if finals else text
    place = _end_of_reasoning(text, 0)
    unopened = None if place else _UNOPENED.match(text)
    return text[_end_of_reasoning(text, unopened.end()) if unopened else place :]


def _end_of_reasoning(text: str, place: int) -> int:
    """Return the position after the reasoning blocks that follow ``place``. A block without an end does not count."""
    while opened := _OPENING.match(text, place):
        closing = re.compile(re.escape(_THOUGHT_TAGS[opened[1].lower()]), re.IGNORECASE).search(text, opened.end())
        if closing is None:
            return place
        place = closing.end()
    return place


def _not_json(problem: str) -> AnswerError:
    return AnswerError(FailureCause.NOT_JSON, f"{problem} {ONE_OBJECT}")


def _objects(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    n_broken = 0
    place = _next_bracket(text, 0)
    while place < len(text):
        try:
            value, place = _decoded(text, place)
        except _ProseError as prose:
            n_broken += isinstance(prose, _BrokenError)
            if n_broken > _MOST_BROKEN:
                raise _not_json("The answer contains too many brackets.") from None
            place = _after_prose(text, place, str(prose))
            continue
        if isinstance(value, dict):
            found.append(value)
        elif value and any(isinstance(item, dict) for item in value):
            raise _not_json("The answer is a list.")
        place = _next_bracket(text, place)
    return found


class _ProseError(Exception):
    """A bracket does not begin a JSON value."""


class _BrokenError(_ProseError):
    """A bracket looks like the beginning of a JSON value, but what follows is none."""


def _decoded(text: str, place: int) -> tuple[Any, int]:
    """Return the value that begins there and its end. Raises ``_ProseError``, or ``AnswerError`` for an invalid value."""
    if not _VALUE_START.match(text, place):
        raise _ProseError(
            "Expecting property name enclosed in double quotes" if text[place] == "{" else "Expecting value"
        )
    try:
        return _DECODER.raw_decode(text, place)
    except json.JSONDecodeError as broken:
        raise _BrokenError(broken.msg) from None
    except ValueError:
        raise _not_json("A number in the answer has too many digits.") from None
    except RecursionError:
        raise _not_json("The answer is nested too deeply.") from None


def _after_prose(text: str, place: int, problem: str) -> int:
    """Return the next bracket after one in prose. Raises ``AnswerError`` if that one begins a broken object."""
    following = _next_bracket(text, place + 1)
    if _OBJECT_START.match(text, place) or (following < len(text) and _is_open(text[place:following])):
        # Searching on would find an inner object and take it for the answer.
        raise _not_json(f"The JSON object is broken: {problem}.")
    return following


def _is_open(text: str) -> bool:
    """Return whether the text has an unclosed bracket. Braces in prose are closed: ``{name}``."""
    return sum(text.count(bracket) for bracket in "{[") > sum(text.count(bracket) for bracket in "}]")


def _next_bracket(text: str, start: int) -> int:
    found = _BRACKET.search(text, start)
    return found.start() if found else len(text)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key in counts if counts[key] > 1)
        raise _not_json(f"The key {cut(repeated, _KEY_CHARS)[0]!r} occurs twice in one object.")
    return mapping


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _not_json(f"The number {digits[:20]} is too large.")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise _not_json(f"{name} is not JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_float=_finite)


def read_verdict(answer: dict[str, Any], min_score: int) -> Verdict:
    """Accept an answer that says PASS, or has a true ``PASS_WORDS`` field, and reaches the minimum score."""
    said = answer.get("verdict")
    passed = said.upper() == "PASS" if isinstance(said, str) else any(answer.get(word) is True for word in PASS_WORDS)
    score = answer.get("score")
    score = score if isinstance(score, int | float) and not isinstance(score, bool) else None
    reached = min_score <= 0 or (score is not None and score >= min_score)
    given = answer.get("reasons") or []
    reasons = [given] if isinstance(given, str) else [str(reason) for reason in given]
    if passed and not reached:
        reasons = [*reasons, f"The score {score} is below {min_score}."]
    return Verdict(accepted=passed and reached, score=score, reasons=reasons, answer=answer)


def verdict_field(names: Container[str]) -> str:
    """Return the field of a judge's answer that says whether the output passed."""
    return next((name for name in ("verdict", *PASS_WORDS) if name in names), "verdict")


def feedback(verdict: Verdict) -> str:
    """Return the message about a rejection for the generating model."""
    reasons = "\n".join(f"- {reason}" for reason in verdict.reasons) or "- no reason was given"
    return f"The judge rejected the answer:\n{reasons}"
