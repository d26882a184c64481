"""A run stops when going on would only cost, and not before."""

from __future__ import annotations

import pytest

from llmbatch_assets.engine.stop_rules import StopRules
from llmbatch_assets.engine.tally import Tally


def tally(accepted: int = 0, for_good: int = 0, **causes: int) -> Tally:
    failed = sum(causes.values())
    return Tally(1000, accepted=accepted, failed=failed, failed_for_good=for_good, causes=causes)


@pytest.mark.parametrize(
    ("rules", "stands", "cause"),
    [
        # Hopeless: the first ten alike, for good, and nothing accepted.
        (StopRules(), tally(for_good=9, bad_request=9), None),
        (StopRules(), tally(for_good=10, bad_request=10), "hopeless"),
        (StopRules(), tally(1, for_good=10, bad_request=10), None),
        (StopRules(), tally(for_good=10, bad_request=5, refused=5), None),
        (StopRules(), tally(for_good=0, not_json=50), None),
        # A number of failures.
        (StopRules(max_failures=3), tally(5, not_json=2), None),
        (StopRules(max_failures=3), tally(5, not_json=2, cut_off=1), "too_many_failures"),
        # A share of them, once there are enough to tell.
        (StopRules(max_failure_rate=0.5), tally(0, not_json=19), None),
        (StopRules(max_failure_rate=0.5), tally(10, not_json=10), None),
        (StopRules(max_failure_rate=0.5), tally(9, not_json=11), "too_many_failures"),
    ],
)
def test_a_run_stops_where_its_rules_say(rules: StopRules, stands: Tally, cause: str | None) -> None:
    broken = rules.broken_by(stands)
    assert (broken and broken.cause) == cause


def test_a_stop_tells_counts_and_causes() -> None:
    broken = StopRules(max_failures=3).broken_by(tally(5, not_json=2, cut_off=1))
    assert str(broken) == "3 items failed (1 cut_off, 2 not_json), as many as llm.max_failures allows"
