"""Failed attempts as lines of a log: each names the item, the attempt and the problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from llmbatch_assets.domain.outcome import FailedTry
from llmbatch_assets.domain.text import counted, cut, flatten, visible
from llmbatch_assets.errors import FailureCause

MESSAGE_CHARS = 300
# Shorter keys are placeholders such as "none", which also occur as words.
SHORTEST_KEY = 7


class AttemptLine(NamedTuple):
    """A failed attempt. ``is_last``: the item has failed with it. Lines of the same ``kind`` are about the same problem."""

    text: str
    kind: str
    is_last: bool


def attempt_line(one: FailedTry, keys: Collection[str] = ()) -> AttemptLine:
    """Describe a failed attempt on one line. API keys that a server repeats in its message are left out."""
    failed = " failed" if one.is_last else ""
    message = cut(visible(flatten(without_keys(_problem(one), keys))), MESSAGE_CHARS)[0]
    kind = f"failed: {one.failure.cause}" if one.is_last else one.failure.cause
    return AttemptLine(f"{visible(one.item.partition_key)}{failed}: {_what(one)}: {message}", kind, one.is_last)


def without_keys(text: str, keys: Collection[str]) -> str:
    """Replace each API key by ``[key]``."""
    for key in keys:
        if len(key) > SHORTEST_KEY:
            text = text.replace(key, "[key]")
    return text


def _what(one: FailedTry) -> str:
    failure, attempt = one.failure, f"attempt {one.tried}/{one.n_tries}"
    if failure.cause == FailureCause.JUDGE_REJECTED:
        score = (failure.judge or {}).get("score")
        return f"LLM output rejected by the judge ({attempt}{'' if score is None else f', score {score}'})"
    if failure.failure_class == "answer":
        return f"LLM output invalid ({attempt})"
    return f"no {'verdict' if failure.cause == FailureCause.JUDGE_UNREADABLE else 'answer'} ({attempt})"


def _problem(one: FailedTry) -> str:
    failure = one.failure
    message = failure.error.get("detail") or failure.error.get("message", "")
    if failure.cause == FailureCause.JUDGE_REJECTED:
        return "; ".join(message.split("\n- ")[1:]) or message
    return message if failure.error.get("detail") else f"{failure.cause}: {message}"


class FirstOfEachKind:
    """Selects the first lines of each kind and counts the others, so that a log stays readable however long a run is."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts = Counter[str]()

    def takes(self, kind: str) -> bool:
        """Whether a line is among the first of its kind."""
        self._counts[kind] += 1
        return self._counts[kind] <= self._limit

    def others(self) -> list[str]:
        """Say how many lines of each kind were left out."""
        return [
            f"... and {counted(count - self._limit, 'more attempt')}: {kind}"
            for kind, count in self._counts.items()
            if count > self._limit
        ]
