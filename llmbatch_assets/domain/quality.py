"""How good the outputs of a batch are, as checks that pass or fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from llmbatch_assets.domain.parameters import Checks
from llmbatch_assets.domain.text import counted

# Causes of failures for which the answer broke the contract.
BROKEN_CONTRACT = {"not_json", "schema_mismatch", "wrapped", "empty_answer", "cut_off"}


@dataclass(frozen=True)
class Quality:
    """What is known of a batch after a run.

    ``versions`` has a fingerprint for each accepted output; equal content has the same one. ``causes`` counts the items
    that failed in this run.
    """

    n_accepted: int
    n_failed: int
    causes: Mapping[str, int]
    versions: Sequence[str]
    scores: Sequence[float]

    @property
    def acceptance_rate(self) -> float:
        """The share of accepted ones among the items that were ever attempted; 1 where none was."""
        attempted = self.n_accepted + self.n_failed
        return self.n_accepted / attempted if attempted else 1.0

    @property
    def mean_score(self) -> float | None:
        """The judge's mean score, None where nothing was judged."""
        return fmean(self.scores) if self.scores else None


class Finding(NamedTuple):
    """The result of a check. ``warning`` says that it is worth a look and no reason to stop."""

    name: str
    passed: bool
    warning: bool
    told: str
    facts: dict[str, float | int]


ACCEPTANCE, BROKEN, SCORE, DUPLICATES = "acceptance_rate", "schema_failures", "judge_score", "duplicate_outputs"
# The checks of ``assess`` by name, with what they look at.
ABOUT_OUTPUTS = {
    ACCEPTANCE: "The share of attempted items that have an accepted output is at least checks.min_acceptance, and more than 0.",
    BROKEN: "No item of the last run failed because its answers broke the schema.",
    SCORE: "The mean score of the judge is at least checks.min_judge_score.",
    DUPLICATES: "No two items have the same output.",
}


def assess(quality: Quality, limits: Checks) -> Iterator[Finding]:
    """The findings on the outputs of a batch, one for each of ``ABOUT_OUTPUTS``."""
    yield _acceptance(quality, limits.min_acceptance)
    broken = {cause: count for cause, count in sorted(quality.causes.items()) if cause in BROKEN_CONTRACT}
    n_broken = sum(broken.values())
    causes = f" ({', '.join(f'{count} {cause}' for cause, count in broken.items())})" if broken else ""
    yield Finding(
        BROKEN, not n_broken, True, f"{counted(n_broken, 'item')} of the last run{causes}", {"n_items": n_broken}
    )
    yield _score(quality, limits.min_judge_score)
    alike = [count for count in Counter(quality.versions).values() if count > 1]
    told = f"{counted(sum(alike), 'output')} in {counted(len(alike), 'set')} of equal ones"
    yield Finding(DUPLICATES, not alike, True, told, {"n_outputs": sum(alike), "n_sets": len(alike)})


def _acceptance(quality: Quality, least: float) -> Finding:
    attempted, rate = quality.n_accepted + quality.n_failed, quality.acceptance_rate
    wanted = f"at least {least:.0%} are" if least else "more than none is"
    told = f"{quality.n_accepted} of {attempted} attempted items are accepted; {wanted} wanted"
    facts = {"acceptance_rate": rate, "n_accepted": quality.n_accepted, "n_failed": quality.n_failed}
    return Finding(ACCEPTANCE, rate >= least and rate > 0, False, told, facts)


def _score(quality: Quality, least: float) -> Finding:
    scores, mean = quality.scores, quality.mean_score
    if mean is None:
        return Finding(SCORE, True, False, "no output has a score", {"n_scores": 0})
    told = f"the mean of {len(scores)} scores is {mean:.1f}; at least {least:g} is wanted"
    facts = {"judge_score_mean": mean, "judge_score_lowest": min(scores), "n_scores": len(scores)}
    return Finding(SCORE, mean >= least, False, told, facts)
