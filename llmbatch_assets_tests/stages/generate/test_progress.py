"""The lines that logs get of a run: all numbers, at a rate that a log bears."""

from __future__ import annotations

from llmbatch_assets.domain.progress import Tally
from llmbatch_assets.domain.usage import TokenUsage, UsageTotal
from llmbatch_assets.resources.runs import DAGSTER_PAUSE_SEC, DAGSTER_SILENCE_SEC
from llmbatch_assets.stages.generate.progress import LogReporter


class Log:
    """Keeps lines, and a clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []

    def reporter(self, verbose: int, *, pause: float = 0.0, silence: float = float("inf")) -> LogReporter:
        return LogReporter(self.lines.append, verbose, pause=pause, silence=silence, clock=lambda: self.now)

    def work(self, reporter: LogReporter, total: int, seconds_each: float) -> None:
        tally = Tally(total)
        reporter.began(tally)
        for _ in range(total):
            self.now += seconds_each
            tally.accepted += 1
            reporter.advanced(tally)


def test_a_line_has_every_number() -> None:
    log = Log()
    reporter = log.reporter(10)
    tally = Tally(10, cached=39, found=1)
    reporter.began(tally)
    tally.accepted, tally.failed, tally.in_flight = 2, 3, 4
    tally.causes = {"timeout": 1, "not_json": 2}
    tally.usage = UsageTotal([TokenUsage(requests=5, input_tokens=1_000, output_tokens=234, cost_usd=0.5)])
    log.now = 10.0
    reporter.advanced(tally)
    (line,) = log.lines
    assert line == (
        "6/10 done, 2 accepted, 3 failed (2 not_json, 1 timeout), 1234 tokens, $0.50, 40 from cache, 4 in flight, "
        "0.6 items/s, 0:00:07 left"
    )


def test_a_log_without_limits_follows_the_verbosity() -> None:
    log = Log()
    log.work(log.reporter(10), 1_000, 0.001)
    assert len(log.lines) == 1_000


def test_dagsters_log_gets_a_line_a_second_at_most_and_always_the_last_one() -> None:
    log = Log()
    log.work(log.reporter(10, pause=DAGSTER_PAUSE_SEC, silence=DAGSTER_SILENCE_SEC), 10_000, 0.001)
    assert 9 <= len(log.lines) <= 12
    assert log.lines[-1].startswith("10000/10000 done")


def test_dagsters_log_is_not_silent_for_hours_while_items_end() -> None:
    log = Log()
    log.work(log.reporter(1, pause=DAGSTER_PAUSE_SEC, silence=DAGSTER_SILENCE_SEC), 1_000, 6.0)
    assert len(log.lines) >= 6_000 / DAGSTER_SILENCE_SEC - 1
