"""Differences between two identities: lines of prompts, fields of schemas, configuration keys, and outputs of items."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.item_state import ItemState
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.prompt import PromptTemplate

# Longer prompts are shown in full, before and after, since the time of a diff grows with the square of the lines.
MOST_LINES = 2_000
UNKNOWN = "text not found in provenance/"

OutputChange = Literal[
    "changed", "newly_failing", "newly_passing", "unchanged", "still_failing", "not_made_yet", "only_now", "neither"
]
CHANGE_LABELS: dict[OutputChange, str] = {
    "changed": "changed",
    "newly_failing": "newly failing",
    "newly_passing": "newly passing",
    "unchanged": "unchanged",
    "still_failing": "still failing",
    "not_made_yet": "not regenerated yet",
    "only_now": "not generated before",
    "neither": "not attempted",
}
_SHOWN: frozenset[OutputChange] = frozenset({"changed", "newly_failing", "newly_passing"})


class ChangedValue(NamedTuple):
    """A value before and now; None where it does not exist."""

    key: str
    before: str | None
    now: str | None


class Differences(NamedTuple):
    """Changes since the identity ``against``, whose last use began at ``used_at_utc``."""

    against: str
    used_at_utc: str | None
    prompt: list[str]
    judge_prompt: list[str]
    schema: list[ChangedValue]
    config: list[ChangedValue]

    def __bool__(self) -> bool:
        return any(self[2:])

    def as_json(self) -> dict[str, Any]:
        tables = {name: [one._asdict() for one in getattr(self, name)] for name in ("schema", "config")}
        return {**self._asdict(), **tables}


def prompt_lines(before: Any, now: Any) -> list[str]:
    """A unified diff of two prompts in their provenance form; None stands for no prompt."""
    old, new = _lines(before), _lines(now)
    if old == new:
        return []
    if max(len(old), len(new)) > MOST_LINES:
        return [*(f"-{line}" for line in old), *(f"+{line}" for line in new)]
    return list(difflib.unified_diff(old, new, lineterm="", n=1))[2:]


def _lines(prompt: Any) -> list[str]:
    if prompt is None:
        return []
    try:
        return PromptTemplate.model_validate({**prompt, "path": ""}).as_text().splitlines()
    except (ValidationError, TypeError):
        return [f"({UNKNOWN})"]


def changed_values(before: Any, now: Any) -> list[ChangedValue]:
    """The values that differ between two nested objects, under dotted keys."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return [ChangedValue(key, old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)]


def schema_fields(schema: Any) -> Any:
    """A JSON schema with the fields of each model directly under its name, for short dotted keys."""
    if not isinstance(schema, Mapping):
        return schema
    lifted = {**schema, **schema.get("properties", {}), **schema.get("$defs", {})}
    return {key: schema_fields(value) for key, value in lifted.items() if key not in ("properties", "$defs")}


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [pair for name, part in value.items() for pair in _flat(part, f"{key}.{name}" if key else str(name))]
    return [(key, value if isinstance(value, str) else canonical_json(value))]


class OutputSide(NamedTuple):
    """An item's output with one identity, or the reason why it has none."""

    state: ItemState
    parsed: dict[str, Any] | None = None
    cause: str | None = None
    message: str | None = None

    @property
    def has_failed(self) -> bool:
        return self.state in ("failed", "failed_permanently")


class OutputPair(NamedTuple):
    """An item before and now."""

    item: WorkItem
    before: OutputSide
    now: OutputSide

    @property
    def change(self) -> OutputChange:
        before, now = self.before, self.now
        if now.state == "missing":
            return "neither" if before.state == "missing" else "not_made_yet"
        if before.state == "missing":
            return "only_now"
        if before.has_failed or now.has_failed:
            both = before.has_failed and now.has_failed
            return "still_failing" if both else "newly_failing" if now.has_failed else "newly_passing"
        # Compared as text, since 1 == True in Python.
        return "unchanged" if canonical_json(before.parsed) == canonical_json(now.parsed) else "changed"

    @property
    def fields(self) -> list[ChangedValue]:
        """The values that differ, under dotted keys; a failure counts as one."""
        return changed_values(_values(self.before), _values(self.now))

    def as_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self.item, name) for name in ("partition_key", "work_id", "row_index")},
            "change": self.change,
            "fields": [one._asdict() for one in self.fields],
            "before": self.before._asdict(),
            "now": self.now._asdict(),
        }


def _values(side: OutputSide) -> dict[str, Any]:
    if side.parsed is not None:
        return side.parsed
    return {"(failed)": f"{side.cause}: {side.message}"} if side.has_failed else {}


class Comparison(NamedTuple):
    """All items counted by change, and the ``pairs`` to show. ``left_out`` pairs were beyond the limit."""

    counts: dict[OutputChange, int]
    pairs: list[OutputPair]
    left_out: int

    @property
    def headline(self) -> str:
        always = (*_SHOWN, "unchanged")
        counts = self.counts.items()
        return ", ".join(f"{count:,} {CHANGE_LABELS[change]}" for change, count in counts if count or change in always)


def compare_outputs(pairs: Iterable[OutputPair], limit: int) -> Comparison:
    """Count all pairs, but keep only the first ``limit`` that differ (0: all) in memory."""
    counts, kept = Counter[OutputChange](), list[OutputPair]()
    for pair in pairs:
        counts[pair.change] += 1
        if pair.change in _SHOWN and (not limit or len(kept) < limit):
            kept.append(pair)
    n_shown = sum(counts[change] for change in _SHOWN)
    return Comparison({change: counts[change] for change in CHANGE_LABELS}, kept, n_shown - len(kept))
