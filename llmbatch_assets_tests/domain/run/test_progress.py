"""Speed and remaining time, with times passed in by the test."""

from __future__ import annotations

import pytest

from llmbatch_assets.domain.run.progress import WINDOW_SEC, Pace, format_duration


def test_speed_and_remaining_time_are_unknown_at_first() -> None:
    pace = Pace(100.0)
    assert (pace.per_second, pace.seconds_left(10)) == (0.0, None)
    pace.mark(100.0, 0)
    assert pace.per_second == 0.0


def test_the_pace_is_recent_not_that_of_the_whole_run() -> None:
    pace = Pace(0.0)
    for second in range(1, 201):
        # A hundred seconds at ten a second, then at one.
        pace.mark(float(second), 10 * second if second <= 100 else 900 + second)
    assert pace.per_second == pytest.approx(1.0, rel=0.2)
    assert pace.seconds_left(1_160) == pytest.approx(60, rel=0.2)


def test_the_number_of_samples_stays_bounded() -> None:
    pace = Pace(0.0)
    for tick in range(100_000):
        pace.mark(tick / 1_000, tick)
    assert len(pace._samples) <= 2 * WINDOW_SEC + 2
    assert pace.per_second == pytest.approx(1_000, rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "told"), [(None, "-:--:--"), (0.4, "0:00:00"), (65, "0:01:05"), (3_600 * 30 + 59.6, "30:01:00")]
)
def test_a_duration_is_shown_in_hours_minutes_and_seconds(seconds: float | None, told: str) -> None:
    assert format_duration(seconds) == told
