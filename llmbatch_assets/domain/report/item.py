"""What the report calls an item's group, and what a judge said of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.text import cut

NO_GROUP = "all rows"
EMPTY_GROUP = "(no value)"
REASON_CHARS = 300


def group_name(item: WorkItem) -> str:
    """The item's group. A group of rows without a key is not taken for all rows."""
    return NO_GROUP if item.group_key is None else item.group_key or EMPTY_GROUP


def in_order(output: AcceptedOutput, fields: Sequence[str]) -> AcceptedOutput:
    """The output with these fields first: artifacts have theirs sorted, people read them as the schema has them."""
    named = {name: output.parsed[name] for name in fields if name in output.parsed}
    return output.model_copy(update={"parsed": named | output.parsed})


def reasons_of(judge: dict[str, Any] | None) -> list[str]:
    """The judge's reasons as short texts on one line each; blank ones are none."""
    told = (judge or {}).get("reasons") or []
    texts = [told] if isinstance(told, str) else told if isinstance(told, list) else [told]
    lines = (" ".join(str(text).split()) for text in texts)
    return [cut(line, REASON_CHARS)[0] for line in lines if line]


def score_of(judge: dict[str, Any] | None) -> float | None:
    """The judge's score, where it is a number."""
    score = (judge or {}).get("score")
    return score if isinstance(score, int | float) and not isinstance(score, bool) else None
