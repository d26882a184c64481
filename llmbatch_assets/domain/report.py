"""What the report says, before it is laid out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.cost import shown
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt, TokenUsage
from llmbatch_assets.domain.work import WorkItem

SHORT_CHARS = 200
NO_GROUP = "all rows"
EMPTY_GROUP = "(no value)"


def _group_name(item: WorkItem) -> str:
    return NO_GROUP if item.group_key is None else item.group_key or EMPTY_GROUP


class GroupLine(NamedTuple):
    """How the items of one group stand."""

    group: str
    accepted: int
    failed: int
    missing: int


class Sample(NamedTuple):
    """One output to look at."""

    group: str
    partition_key: str
    row_index: int | None
    context: str
    output: str
    verdict: str
    artifact: str


class FailureExample(NamedTuple):
    """One failed item, and the file to open."""

    partition_key: str
    message: str
    artifact: str


class FailureCause(NamedTuple):
    """All items that failed for one cause."""

    cause: str
    n_items: int
    examples: list[FailureExample]


@dataclass
class Findings:
    """Everything that is gathered in one pass over the items of a batch."""

    sample_per_group: int
    max_examples: int
    full_examples: bool
    groups: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    attempts: Counter[int] = field(default_factory=Counter)
    scores: list[float] = field(default_factory=list)
    usage: TokenUsage = field(default_factory=TokenUsage)
    latencies: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[FailureExample]] = field(default_factory=lambda: defaultdict(list))

    def add_accepted(self, item: WorkItem, output: AcceptedOutput) -> None:
        """Count an item with an output."""
        group = _group_name(item)
        self.groups[group]["accepted"] += 1
        self.attempts[output.meta["attempt_outer"]] += 1
        self.usage += output.usage
        self.latencies.append(output.latency_sec)
        judge = output.judge or {}
        if isinstance(judge.get("score"), int | float):
            self.scores.append(judge["score"])
        if self.groups[group]["accepted"] <= self.sample_per_group:
            self.samples.append(self._sample(group, item, output))

    def _sample(self, group: str, item: WorkItem, output: AcceptedOutput) -> Sample:
        text = readable_json(output.parsed)
        short = text if self.full_examples or len(text) <= SHORT_CHARS else text[:SHORT_CHARS] + " …"
        verdict = str((output.judge or {}).get("verdict", ""))
        name = f"{output.meta['cache_id']}.json"
        return Sample(group, item.partition_key, item.row_index, item.context, short, verdict, name)

    def add_failed(self, item: WorkItem, failure: FailedAttempt) -> None:
        """Count an item whose attempts gave nothing."""
        self.groups[_group_name(item)]["failed"] += 1
        self.causes[failure.cause] += 1
        if len(self.examples[failure.cause]) < self.max_examples:
            name = f"{failure.meta['cache_id']}__a{failure.meta['attempt_outer']}.json"
            self.examples[failure.cause].append(FailureExample(item.partition_key, failure.error["message"], name))

    def add_missing(self, item: WorkItem) -> None:
        """Count an item that was not attempted."""
        self.groups[_group_name(item)]["missing"] += 1

    def counts(self) -> dict[str, int]:
        """Accepted, failed, missing, and their sum."""
        sums = {
            state: sum(group[state] for group in self.groups.values()) for state in ("accepted", "failed", "missing")
        }
        return {"items": sum(sums.values()), **sums}

    def group_lines(self) -> list[GroupLine]:
        """The groups in the order in which they were first seen."""
        return [GroupLine(name, n["accepted"], n["failed"], n["missing"]) for name, n in self.groups.items()]

    def failure_causes(self) -> list[FailureCause]:
        """Causes, the most frequent first."""
        ordered = sorted(self.causes.items(), key=lambda pair: (-pair[1], pair[0]))
        return [FailureCause(cause, count, self.examples[cause]) for cause, count in ordered]


def gather(
    findings: Findings,
    items: Iterable[WorkItem],
    output_of: Callable[[WorkItem], AcceptedOutput | None],
    failure_of: Callable[[WorkItem], FailedAttempt | None],
) -> Findings:
    """Go over all items once. Every item is counted in exactly one state."""
    for item in items:
        if (output := output_of(item)) is not None:
            findings.add_accepted(item, output)
        elif (failure := failure_of(item)) is not None:
            findings.add_failed(item, failure)
        else:
            findings.add_missing(item)
    return findings


def median(numbers: Sequence[float]) -> float | None:
    """The middle of the numbers; of two middles the lower."""
    return sorted(numbers)[(len(numbers) - 1) // 2] if numbers else None


def report_page(
    findings: Findings, *, title: str, config: dict[str, Any], facts: dict[str, Any], pointers: dict[str, str]
) -> dict[str, Any]:
    """The values of the report's templates."""
    return {
        "title": title,
        "counts": findings.counts(),
        "facts": facts,
        "groups": findings.group_lines(),
        "attempts": sorted(findings.attempts.items()),
        "judge_mean": round(sum(findings.scores) / len(findings.scores), 1) if findings.scores else None,
        "latency_median": median(findings.latencies),
        "usage": findings.usage,
        "cost": shown(findings.usage.cost_usd),
        "causes": findings.failure_causes(),
        "samples": findings.samples,
        "config": readable_json(config),
        "pointers": pointers,
    }
