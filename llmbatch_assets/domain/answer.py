"""From what a model said to the one JSON object in it."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from llmbatch_assets.errors import AnswerError, FailureCause

# Some servers put the opening tag into the prompt, so that an answer holds only the closing one. What begins as JSON or
# as a fence is no thought: there the tag stands inside of a value.
_THOUGHTS = re.compile(r"\A(?!\s*[{`]).*?</think>(?:\s*<think>.*?</think>)*", re.DOTALL)
_OBJECT_START = re.compile(r'[{\[]\s*["{\[]')
ONE_OBJECT = "Answer with exactly one JSON object and nothing else."


def read_object(text: str) -> dict[str, Any]:
    """The one JSON object of an answer; thoughts, fences and prose around it are passed over.

    Raises ``AnswerError``: none, more than one, a list, a repeated key, NaN. Nothing is repaired.
    """
    if not text.strip():
        raise AnswerError(FailureCause.EMPTY_ANSWER, f"The answer is empty. {ONE_OBJECT}")
    spoken = without_thoughts(text)
    if spoken.lstrip().startswith("<think>"):
        raise AnswerError(FailureCause.NOT_JSON, f"The answer ends before its thoughts do. {ONE_OBJECT}")
    found = _objects(spoken)
    if len(found) == 1:
        return found[0]
    if not found:
        raise AnswerError(FailureCause.NOT_JSON, f"The answer holds no complete JSON object. {ONE_OBJECT}")
    raise AnswerError(FailureCause.NOT_JSON, f"The answer holds {len(found)} JSON objects. {ONE_OBJECT}")


def without_thoughts(text: str) -> str:
    """The answer without the ``<think>`` blocks that it may begin with."""
    return _THOUGHTS.sub("", text)


def _objects(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    place = _next_bracket(text, 0)
    while place < len(text):
        try:
            value, place = _DECODER.raw_decode(text, place)
        except json.JSONDecodeError as broken:
            following = _next_bracket(text, place + 1)
            if _OBJECT_START.match(text, place) or (following < len(text) and _is_open(text[place:following])):
                # Looking further would find a part of it and take that for the whole.
                raise AnswerError(
                    FailureCause.NOT_JSON, f"The JSON object is broken: {broken.msg}. {ONE_OBJECT}"
                ) from None
            place = following
            continue
        except ValueError:
            raise AnswerError(
                FailureCause.NOT_JSON, f"A number of the answer has too many digits. {ONE_OBJECT}"
            ) from None
        except RecursionError:
            raise AnswerError(FailureCause.NOT_JSON, f"The answer is nested too deeply. {ONE_OBJECT}") from None
        if isinstance(value, dict):
            found.append(value)
        elif value and any(isinstance(item, dict) for item in value):
            raise AnswerError(FailureCause.NOT_JSON, f"The answer is a list. {ONE_OBJECT}")
        place = _next_bracket(text, place)
    return found


def _is_open(text: str) -> bool:
    """Whether the first bracket of the text is not closed in it. Braces in prose are: ``{name}``."""
    return sum(text.count(bracket) for bracket in "{[") > sum(text.count(bracket) for bracket in "}]")


def _next_bracket(text: str, start: int) -> int:
    places = [place for place in (text.find("{", start), text.find("[", start)) if place >= 0]
    return min(places, default=len(text))


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        repeated = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise AnswerError(FailureCause.NOT_JSON, f"The key {repeated!r} occurs twice in one object. {ONE_OBJECT}")
    return mapping


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise AnswerError(FailureCause.NOT_JSON, f"The number {digits[:20]} is too large. {ONE_OBJECT}")
    return number


def _no_constant(name: str) -> NoReturn:
    raise AnswerError(FailureCause.NOT_JSON, f"{name} is not JSON. {ONE_OBJECT}")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant, parse_float=_finite)
