"""The lines of the report's table of items."""

from __future__ import annotations

from typing import NamedTuple

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.domain.report.item import group_name, reasons_of, score_of
from llmbatch_assets.domain.report.tallies import End
from llmbatch_assets.domain.text import cut

OUTPUT_CHARS = 1_000
CONTEXT_CHARS = 300
REASONS_CHARS = 300


class ItemRow(NamedTuple):
    """One item. The order of the fields is that of the page's script."""

    key: str
    row: int | None
    group: str
    end: End
    cause: str
    attempts: int | None
    score: float | None
    tokens: int | None
    cost: float | None
    text: str
    reasons: str
    context: str
    artifact: str


def accepted_row(item: WorkItem, output: AcceptedOutput) -> ItemRow:
    """The line of an item with an output."""
    return _row(
        item,
        "accepted",
        attempts=output.meta["attempt_outer"],
        score=score_of(output.judge),
        tokens=output.usage.total_tokens,
        cost=output.usage.cost_usd,
        text=_members(output),
        reasons=reasons_of(output.judge),
        artifact=f"{output.meta['cache_id']}.json",
    )


def failed_row(item: WorkItem, failure: FailedAttempt) -> ItemRow:
    """The line of an item whose attempts gave nothing: what became of the last one."""
    return _row(
        item,
        "failed",
        cause=failure.cause,
        attempts=failure.meta["attempt_outer"],
        score=score_of(failure.judge),
        tokens=failure.usage.total_tokens,
        cost=failure.usage.cost_usd,
        text=failure.error["message"],
        reasons=reasons_of(failure.judge),
        artifact=failure_file(failure),
    )


def missing_row(item: WorkItem) -> ItemRow:
    """The line of an item that was not attempted."""
    return _row(item, "missing")


def failure_file(failure: FailedAttempt) -> str:
    """The name of a failed attempt's file."""
    return f"{failure.meta['cache_id']}__a{failure.meta['attempt_outer']}.json"


def _row(
    item: WorkItem,
    end: End,
    *,
    cause: str = "",
    attempts: int | None = None,
    score: float | None = None,
    tokens: int | None = None,
    cost: float | None = None,
    text: str = "",
    reasons: list[str] | None = None,
    artifact: str = "",
) -> ItemRow:
    return ItemRow(
        key=item.partition_key,
        row=item.row_index,
        group=group_name(item),
        end=end,
        cause=cause,
        attempts=attempts,
        score=score,
        tokens=tokens,
        cost=cost,
        text=cut(text, OUTPUT_CHARS)[0],
        reasons=cut("\n".join(reasons or ()), REASONS_CHARS)[0],
        context=cut(item.context, CONTEXT_CHARS)[0],
        artifact=artifact,
    )


def _members(output: AcceptedOutput) -> str:
    """The output as a line for each field."""
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else canonical_json(value)}" for name, value in output.parsed.items()
    )
