"""Facts of several servers as one."""

from __future__ import annotations

from llmbatch_assets.domain.pacing import PacingFacts, together


def test_counts_are_added_and_the_lowest_concurrency_is_the_lowest() -> None:
    both = together([PacingFacts(5, 2, 1, 4, 1.25), PacingFacts(3, 0, 0, 8, 0.5)])
    assert both == PacingFacts(8, 2, 1, 4, 1.75)


def test_where_nothing_was_asked_nothing_happened() -> None:
    assert together([]) == PacingFacts()
