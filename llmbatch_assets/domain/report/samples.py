"""Outputs to look at: as many of each group, picked as if by chance, and always the same."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.report.item import group_name, reasons_of
from llmbatch_assets.domain.text import cut

SHORT_CHARS = 200
# Even a whole example has to be read by somebody.
FULL_CHARS = 20_000
MAX_SAMPLES = 200


class Sample(NamedTuple):
    """One output to look at."""

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
    """Picks items while all go by. Holds no output: those of the picked ones are read afterwards."""

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
        # Ids are hashes, so the smallest ones are as good as drawn by lot.
        if len(group) < self.per_group or item.work_id < group[-1][0]:
            insort(group, (item.work_id, self._seen, item))
            del group[self.per_group :]

    def items(self) -> list[WorkItem]:
        """The picked items, group by group; where there are too many, as many of each group as there is room for.

        More groups than there is room for are chosen among by the ids, too: not the first ones of the table.
        """
        ranked = [
            (rank, work_id, place, seen, item)
            for place, group in enumerate(self._picked.values())
            for rank, (work_id, seen, item) in enumerate(group)
        ]
        kept = sorted(ranked, key=lambda pick: pick[:4])[: self.most]
        return [item for *_, item in sorted(kept, key=lambda pick: pick[2:4])]


def sample_of(item: WorkItem, output: AcceptedOutput, *, full: bool) -> Sample:
    """What is shown of an item's output; without ``full`` only the beginning."""
    judge = output.judge or {}
    return Sample(
        group=group_name(item),
        partition_key=item.partition_key,
        row_index=item.row_index,
        context=cut(item.context, FULL_CHARS)[0],
        output=_shown(readable_json(output.parsed), full=full),
        verdict=str(judge.get("verdict", "")),
        score=judge.get("score"),
        reasons=reasons_of(judge),
        artifact=f"{output.meta['cache_id']}.json",
    )


def _shown(text: str, *, full: bool) -> str:
    limit = FULL_CHARS if full else SHORT_CHARS
    return text if len(text) <= limit else text[:limit] + " …"
