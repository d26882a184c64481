"""Checks of the quality of a batch's outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from llmbatch_assets.domain.configuration.model_blocks import Checks
from llmbatch_assets.domain.text import counted
from llmbatch_assets.errors import FailureCause

# Failure causes in which the answer broke the schema.
SCHEMA_FAILURES = {
    FailureCause.NOT_JSON,
    FailureCause.SCHEMA_MISMATCH,
    FailureCause.WRAPPED,
    FailureCause.EMPTY_ANSWER,
    FailureCause.CUT_OFF,
}


@dataclass(frozen=True)
class OutputQuality:
    """The state of a batch after a run.

    ``versions`` holds a fingerprint of each accepted output; equal outputs have the same one. ``causes`` counts the
    items that failed in this run, by cause.
    """

    n_accepted: int
    n_failed: int
    causes: Mapping[str, int]
    versions: Sequence[str]
    scores: Sequence[float]

    @property
    def acceptance_rate(self) -> float:
        """The accepted share of all items attempted so far; 1 if there are none."""
        attempted = self.n_accepted + self.n_failed
        return self.n_accepted / attempted if attempted else 1.0

    @property
    def mean_score(self) -> float | None:
        """The mean score of the judge; None without scores."""
        return fmean(self.scores) if self.scores else None


class CheckFinding(NamedTuple):
    """The result of a check. With ``warning``, a failed check blocks nothing."""

    name: str
    passed: bool
    warning: bool
    message: str
    facts: dict[str, float | int]


ACCEPTANCE, BROKEN, SCORE, DUPLICATES = "acceptance_rate", "schema_failures", "judge_score", "duplicate_outputs"
# The checks of ``assess``, with their descriptions.
OUTPUT_CHECKS = {
    ACCEPTANCE: "The share of attempted items that are accepted is at least checks.min_acceptance, and more than 0.",
    BROKEN: "No item failed in the last run because its answers broke the schema.",
    SCORE: "The judge's mean score is at least checks.min_judge_score.",
    DUPLICATES: "No two items have the same output.",
}


UP_TO_DATE = "up_to_date"
UP_TO_DATE_DESCRIPTION = (
    "Every item has an output that was made with the current prompt, schema, model and judge. A warning only; evaluated after "
    "each run of prepare or llm_outputs, and by the sensor prepare_after_changes after each change."
)


def assess_age(n_items: int, n_current: int, n_outdated: int, changes: Iterable[str]) -> CheckFinding:
    """The finding of the check ``up_to_date``.

    ``n_current`` counts the items with an output by the current settings, ``n_outdated`` those with one by earlier settings
    only. ``changes`` are the labels of what has changed since.
    """
    n_missing = n_items - n_current - n_outdated
    facts: dict[str, float | int] = {"n_current": n_current, "n_outdated": n_outdated, "n_missing": n_missing}
    problems = []
    if n_outdated:
        n_outputs = counted(n_current + n_outdated, "output")
        were = "was" if n_outdated == 1 else "were"
        problems.append(f"{n_outdated:,} of {n_outputs} {were} made with earlier settings ({', '.join(changes)}).")
    if n_missing:
        problems.append(f"{n_missing:,} of {counted(n_items, 'item')} {'has' if n_missing == 1 else 'have'} no output.")
    if problems:
        message = " ".join([*problems, "Run generate_pending to make them."])
    else:
        message = f"{counted(n_current, 'output')}, all up to date"
    return CheckFinding(UP_TO_DATE, not problems, True, message, facts)


def assess(quality: OutputQuality, limits: Checks) -> Iterator[CheckFinding]:
    """The findings on the outputs of a batch, one for each of ``OUTPUT_CHECKS``."""
    yield _acceptance(quality, limits.min_acceptance)
    yield _schema_failures(quality)
    yield _score(quality, limits.min_judge_score)
    yield _duplicates(quality)


def _acceptance(quality: OutputQuality, minimum: float) -> CheckFinding:
    attempted, rate = quality.n_accepted + quality.n_failed, quality.acceptance_rate
    required = f"at least {minimum:.0%}" if minimum else "more than 0"
    message = f"{quality.n_accepted} of {attempted} attempted items accepted (required: {required})"
    facts = {"acceptance_rate": rate, "n_accepted": quality.n_accepted, "n_failed": quality.n_failed}
    return CheckFinding(ACCEPTANCE, rate >= minimum and rate > 0, False, message, facts)


def _schema_failures(quality: OutputQuality) -> CheckFinding:
    broken = {cause: count for cause, count in sorted(quality.causes.items()) if cause in SCHEMA_FAILURES}
    n_broken = sum(broken.values())
    causes = ", ".join(f"{count} {cause}" for cause, count in broken.items())
    message = f"{counted(n_broken, 'item')} in the last run broke the schema{f' ({causes})' if broken else ''}"
    return CheckFinding(BROKEN, not n_broken, True, message, {"n_items": n_broken})


def _score(quality: OutputQuality, minimum: float) -> CheckFinding:
    scores, mean = quality.scores, quality.mean_score
    if mean is None:
        return CheckFinding(SCORE, True, False, "No scores", {"n_scores": 0})
    message = f"Mean score {mean:.1f} over {counted(len(scores), 'output')} (minimum {minimum:g})"
    facts = {"judge_score_mean": mean, "judge_score_lowest": min(scores), "n_scores": len(scores)}
    return CheckFinding(SCORE, mean >= minimum, False, message, facts)


def _duplicates(quality: OutputQuality) -> CheckFinding:
    sizes = [count for count in Counter(quality.versions).values() if count > 1]
    found = f"{counted(sum(sizes), 'output')} in {counted(len(sizes), 'group')} of identical outputs"
    message = found if sizes else "No duplicate outputs"
    return CheckFinding(DUPLICATES, not sizes, True, message, {"n_outputs": sum(sizes), "n_sets": len(sizes)})
