"""Individual items in the report: rows of the item table, and sample outputs."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmbatch_assets.domain.canonical import canonical_json, readable_json
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.domain.report.value_counts import ItemEnd
from llmbatch_assets.domain.text import cut

NO_GROUP = "all rows"
EMPTY_GROUP = "(no value)"
REASON_CHARS = 300

# Limits of the item table.
OUTPUT_CHARS = 1_000
CONTEXT_CHARS = 300
REASONS_CHARS = 300

# Limits of the samples. Even a full example must stay readable.
SHORT_CHARS = 200
FULL_CHARS = 20_000
MAX_SAMPLES = 200


def group_name(item: WorkItem) -> str:
    """The display name of the item's group. An empty group key is not the same as no grouping."""
    return NO_GROUP if item.group_key is None else item.group_key or EMPTY_GROUP


def in_schema_order(output: AcceptedOutput, fields: Sequence[str]) -> AcceptedOutput:
    """The output with its fields in schema order. In artifacts, they are sorted by name."""
    named = {name: output.parsed[name] for name in fields if name in output.parsed}
    return output.model_copy(update={"parsed": named | output.parsed})


def reasons_of(judge: dict[str, Any] | None) -> list[str]:
    """The judge's reasons, each shortened to one line. Empty ones are dropped."""
    given = (judge or {}).get("reasons") or []
    lines = (" ".join(str(text).split()) for text in (given if isinstance(given, list) else [given]))
    return [cut(line, REASON_CHARS)[0] for line in lines if line]


def score_of(judge: dict[str, Any] | None) -> float | None:
    """The judge's score if it is a number."""
    score = (judge or {}).get("score")
    return score if isinstance(score, int | float) and not isinstance(score, bool) else None


class ItemRow(NamedTuple):
    """A row of the item table. The page's script relies on the order of the fields."""

    key: str
    row: int | None
    group: str
    end: ItemEnd
    cause: str = ""
    attempts: int | None = None
    score: float | None = None
    tokens: int | None = None
    cost: float | None = None
    text: str = ""
    reasons: str = ""
    context: str = ""
    artifact: str = ""


def item_row(item: WorkItem, output: AcceptedOutput | None = None, failure: FailedAttempt | None = None) -> ItemRow:
    """The row of an item, with its output or else its last failed attempt."""
    context = cut(item.context, CONTEXT_CHARS)[0]
    row = ItemRow(item.partition_key, item.row_index, group_name(item), "missing", context=context)
    result = output or failure
    if result is None:
        return row
    row = row._replace(
        attempts=result.meta["attempt_outer"],
        score=score_of(result.judge),
        tokens=result.usage.total_tokens,
        cost=result.usage.cost_usd,
        reasons=cut("\n".join(reasons_of(result.judge)), REASONS_CHARS)[0],
        artifact=artifact_file(result),
    )
    if isinstance(result, FailedAttempt):
        message = cut(result.error["message"], OUTPUT_CHARS)[0]
        return row._replace(end="failed", cause=result.cause, text=message)
    return row._replace(end="accepted", text=cut(_field_lines(result), OUTPUT_CHARS)[0])


def artifact_file(result: AcceptedOutput | FailedAttempt) -> str:
    """The file name of an output or a failed attempt."""
    attempt = f"__a{result.meta['attempt_outer']}" if isinstance(result, FailedAttempt) else ""
    return f"{result.meta['cache_id']}{attempt}.json"


def _field_lines(output: AcceptedOutput) -> str:
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else canonical_json(value)}" for name, value in output.parsed.items()
    )


class Sample(NamedTuple):
    group: str
    partition_key: str
    row_index: int | None
    context: str
    output: str
    verdict: str
    score: Any
    reasons: list[str]
    artifact: str


@dataclass
class SampleChooser:
    """Picks up to ``per_group`` items of each group, independently of their order. Holds no outputs."""

    per_group: int
    most: int = MAX_SAMPLES
    _picked: dict[str, list[tuple[str, int, WorkItem]]] = field(default_factory=dict)
    _seen: int = 0

    def add(self, item: WorkItem) -> None:
        """Consider an accepted item."""
        self._seen += 1
        if not self.per_group:
            return
        group = self._picked.setdefault(group_name(item), [])
        # Ids are hashes, so the smallest ones are a random sample.
        if len(group) < self.per_group or item.work_id < group[-1][0]:
            insort(group, (item.work_id, self._seen, item))
            del group[self.per_group :]

    def items(self) -> list[WorkItem]:
        """The picked items by group, at most ``most``: first one of each group, then a second one, and so on.

        If there are more groups than ``most``, item ids decide which ones are shown, not the order in the table.
        """
        ranked = [
            (rank, work_id, place, seen, item)
            for place, group in enumerate(self._picked.values())
            for rank, (work_id, seen, item) in enumerate(group)
        ]
        kept = sorted(ranked, key=lambda pick: pick[:4])[: self.most]
        return [item for *_, item in sorted(kept, key=lambda pick: pick[2:4])]


def sample_of(item: WorkItem, output: AcceptedOutput, *, full: bool) -> Sample:
    """The sample of an item's output. Without ``full``, it is only the beginning."""
    judge, text = output.judge or {}, readable_json(output.parsed)
    limit = FULL_CHARS if full else SHORT_CHARS
    return Sample(
        group=group_name(item),
        partition_key=item.partition_key,
        row_index=item.row_index,
        context=cut(item.context, FULL_CHARS)[0],
        output=text if len(text) <= limit else text[:limit] + " …",
        verdict=str(judge.get("verdict", "")),
        score=judge.get("score"),
        reasons=reasons_of(judge),
        artifact=artifact_file(output),
    )
