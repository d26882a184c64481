"""Rates: never faster than allowed in any stretch of time, and back to what a server takes after it has objected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.engine.rate import CATCH_UP_SEC, UNDERCUT, Allowance, FoundRate
from llmbatch_assets_tests.domain.strategies import quick


def starts(allowance: Allowance, amounts: list[float], late: float = 0.0) -> list[float]:
    """When calls begin that are all there from the start, each woken up a little late."""
    now, begun = 0.0, []
    for amount in amounts:
        if delay := allowance.delay(now):
            now += delay + late
        allowance.take(amount, now)
        begun.append(now)
    return begun


def test_calls_are_spread_evenly_from_the_first_one_on() -> None:
    assert starts(Allowance(600), [1] * 5) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_without_a_limit_nobody_waits() -> None:
    assert starts(Allowance(0), [1, 10_000, 1]) == [0, 0, 0]


def test_waking_up_late_costs_nothing() -> None:
    begun = starts(Allowance(600), [1] * 101, late=CATCH_UP_SEC / 2)
    assert begun[-1] == pytest.approx(10, abs=0.1)


def test_a_pause_is_not_made_up_for() -> None:
    allowance = Allowance(600)
    allowance.take(1, 0)
    allowance.take(1, 60)
    assert allowance.delay(60) == pytest.approx(0.1)


def test_what_is_larger_than_the_limit_goes_alone_and_is_paid_for_after() -> None:
    assert starts(Allowance(60), [300, 1, 1]) == pytest.approx([0, 300, 301])


@pytest.mark.parametrize(("more", "delay"), [(-60, 40), (0, 100), (60, 160)])
def test_what_was_thought_wrong_is_put_right(more: float, delay: float) -> None:
    allowance = Allowance(60)
    allowance.take(100, 0)
    allowance.correct(more)
    assert allowance.delay(0) == pytest.approx(delay)


@quick
@given(st.integers(1, 200), st.floats(1, 60), st.integers(2, 80))
def test_no_minute_has_more_than_is_allowed(per_minute: int, window: float, calls: int) -> None:
    begun = starts(Allowance(per_minute), [1] * calls)
    for first in begun:
        assert len([one for one in begun if first <= one < first + window - 0.01]) <= per_minute * window / 60 + 1


# What a server has refused.


def test_the_first_refusal_tells_the_rate() -> None:
    found = FoundRate()
    found.refused(600, 60)
    assert found.per_second == pytest.approx(10 * UNDERCUT)


def test_a_server_that_goes_on_refusing_is_still_measured_by_the_calls_before() -> None:
    # Without a Retry-After the gate is opened too early; a pause of a minute is what 600 calls have cost.
    found = FoundRate()
    found.refused(600, 10)
    found.refused(0, 20)
    found.refused(0, 30)
    assert found.per_second == pytest.approx(10 * UNDERCUT)


def test_after_a_spell_of_refusals_a_fast_server_is_soon_called_fast_again() -> None:
    found = FoundRate()
    found.refused(150, 3.5)
    for pause in (1, 2, 4, 8, 16):
        found.refused(0, pause)
    assert found.per_second < 5
    seconds = 0.0
    while found.per_second < 20:
        seconds += 1 / found.per_second
        found.answered()
    assert seconds < 6


def test_one_refusal_hardly_counts_and_several_in_a_row_halve() -> None:
    # At the edge of a limit refusals come in pairs.
    found, rates = FoundRate(10.0), []
    for _ in range(4):
        found.refused(1, 30)
        rates.append(found.per_second)
    assert rates == pytest.approx([10 / UNDERCUT * 0.9, 10 / UNDERCUT * 0.81, rates[1] / 2, rates[1] / 4])


def test_what_was_told_is_not_exceeded_for_long_and_believed_until_it_is_refused_again_and_again() -> None:
    found = FoundRate(10.0)
    for _ in range(10_000):
        found.answered()
    for _ in range(6):
        found.refused(1, 10)
    assert found.per_second < 1


def test_a_refusal_without_anything_known_sets_no_limit() -> None:
    found = FoundRate()
    found.refused(0, 5)
    assert found.per_second == float("inf")


def test_answers_raise_the_rate_ever_faster() -> None:
    found = FoundRate()
    found.refused(600, 60)
    rates = [found.per_second]
    for _ in range(600):
        found.answered()
        rates.append(found.per_second)
    assert rates == sorted(rates)
    assert 10 < rates[100] < 11
    assert rates[600] > 20
