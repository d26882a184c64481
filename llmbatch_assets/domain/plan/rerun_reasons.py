"""Why an item would run: the one or several things that have changed, or what became of its output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.plan.selection import State

Reason = Literal[
    "new_row",
    "row_changed",
    "sibling_changed",
    "group_changed",
    "prompt_changed",
    "schema_changed",
    "parameters_changed",
    "judge_changed",
    "artifact_missing",
    "artifact_broken",
    "failed_before",
    "verdict_missing",
    "forced",
]

LABELS: dict[Reason, str] = {
    "new_row": "new row",
    "row_changed": "row changed",
    "sibling_changed": "another row of its group changed",
    "group_changed": "rows of the group changed",
    "prompt_changed": "prompt changed",
    "schema_changed": "schema changed",
    "parameters_changed": "model or parameters changed",
    "judge_changed": "judge changed",
    "artifact_missing": "its artifact is missing",
    "artifact_broken": "its artifact is broken",
    "failed_before": "failed before",
    "verdict_missing": "answered, but not judged yet",
    "forced": "forced",
}

# Texts that a prompt shows: a change of them is one of the schema, whatever else they are part of.
_SCHEMA_TEXTS = {"llm_schema_txt", "judge_schema"}

Reasons = tuple[Reason, ...]


class Traces(NamedTuple):
    """What there is of the outputs that the items would have now, all by cache id."""

    forced: Collection[str]
    broken: Collection[str]
    failed: Collection[str]
    awaiting: Collection[str]
    once_accepted: Collection[str]


def trace_of(cache_id: str, state: State, traces: Traces) -> Reasons:
    """Why an item runs whose question has been asked before; empty where it has not."""
    if state == "accepted":
        return ("forced",)
    told: dict[Reason, Collection[str]] = {
        "artifact_broken": traces.broken,
        "artifact_missing": traces.once_accepted,
        "verdict_missing": traces.awaiting,
        "failed_before": traces.failed,
        "forced": traces.forced,
    }
    return next(((reason,) for reason, ids in told.items() if cache_id in ids), ())


def changes_between(before: BatchIdentity, now: BatchIdentity) -> Reasons:
    """What makes the outputs of two identities answers to different questions."""
    earlier, later = before.settings, now.settings
    differing = {name for name in earlier.keys() | later.keys() if earlier.get(name) != later.get(name)}
    found: dict[Reason, bool] = {
        "prompt_changed": before.prompt_sha != now.prompt_sha,
        "schema_changed": before.schema_sha != now.schema_sha or bool(differing & _SCHEMA_TEXTS),
        "parameters_changed": (before.model_name, before.temperature) != (now.model_name, now.temperature)
        or bool(differing - _SCHEMA_TEXTS),
        "judge_changed": _judge_changed(before, now),
    }
    return tuple(reason for reason, is_so in found.items() if is_so)


def _judge_changed(before: BatchIdentity, now: BatchIdentity) -> bool:
    """Whether the judge is another one by itself, and not because it is asked with the settings of ``llm``."""
    if (before.judge_enabled, before.judge_prompt_sha) != (now.judge_enabled, now.judge_prompt_sha):
        return True
    earlier, later = before.judge or {}, now.judge or {}
    return any(
        (old := earlier.get(name)) != (new := later.get(name))
        and (old, new) != (_asked(before, name), _asked(now, name))
        for name in earlier.keys() | later.keys()
    )


def _asked(identity: BatchIdentity, name: str) -> Any:
    own = {"model_name": identity.model_name, "temperature": identity.temperature}
    return {**identity.settings, **own}.get(name)


def together(*reasons: Reason) -> Reasons:
    """Several reasons, each once, in the order in which they are told."""
    return tuple(reason for reason in LABELS if reason in reasons)


def count_reasons(reasons: Mapping[str, Reasons]) -> list[tuple[Reasons, int]]:
    """How many items run for the same reasons, the most frequent ones first."""
    order = list(LABELS)
    counts = Counter(reasons.values())
    return sorted(counts.items(), key=lambda pair: (-pair[1], [order.index(reason) for reason in pair[0]]))
