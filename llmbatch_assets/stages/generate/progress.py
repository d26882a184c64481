"""Results and progress of a run, and progress as lines of a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import ItemResult
from llmbatch_assets.domain.run.attempt_lines import AttemptLine, FirstOfEachKind
from llmbatch_assets.domain.run.manifest import GenerationManifest, progress_every_n
from llmbatch_assets.domain.run.progress import Pace, Tally, format_causes, format_duration
from llmbatch_assets.domain.run.quality import OutputQuality
from llmbatch_assets.domain.text import counted, visible
from llmbatch_assets.domain.usage import format_cost
from llmbatch_assets.errors import LlmBatchError, RunInterruptedError

# Maximum number of failed attempts in a log for each kind of problem.
FIRST_ATTEMPTS = 3


class GenerateResult(NamedTuple):
    """The end of a run of the generate stage.

    ``accepted`` are the partition keys of all items of the batch with an output. ``failed`` are the items of this run
    without an output. ``kept`` are those whose regeneration failed and whose earlier output is kept. ``items`` are all items
    of the batch.
    """

    tally: Tally
    accepted: list[str]
    failed: list[WorkItem]
    kept: list[WorkItem]
    error: LlmBatchError | None
    manifest: GenerationManifest
    items: Sequence[WorkItem]

    def totals(self, quality: OutputQuality) -> dict[str, int | float]:
        """Return the state of the batch after this run, and what the run took, as numbers that Dagster plots over runs."""
        meta, counts, usage = self.manifest.meta, self.manifest.counts, self.manifest.usage
        causes = {f"failed_{cause}": count for cause, count in sorted(quality.causes.items())}
        numbers = {
            **causes,
            "missing": counts.n_not_attempted,
            "from_cache": counts.n_cache_skipped + self.tally.found,
            "requests": usage.requests,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "duration_sec": round(meta.elapsed_sec, 1),
            "items_per_second": round(self.tally.done / meta.elapsed_sec, 1) if meta.elapsed_sec else 0,
        }
        state = {
            "accepted": counts.n_success,
            "failed": counts.n_fail,
            "acceptance_rate": round(quality.acceptance_rate, 4),
        }
        score = {} if quality.mean_score is None else {"judge_score_mean": round(quality.mean_score, 1)}
        return {**state, **_not_zero(numbers), **score, **_cost(usage.cost_usd)}


def _not_zero(numbers: Mapping[str, int | float]) -> dict[str, int | float]:
    return {name: number for name, number in numbers.items() if number}


def _cost(cost_usd: float | None) -> dict[str, int | float]:
    return {} if cost_usd is None else {"cost_usd": round(cost_usd, 6)}


class Reporter(Protocol):
    """An observer of a run."""

    def say(self, line: str) -> None:
        """Show a line to people."""

    def began(self, tally: Tally) -> None:
        """Work on items begins. The tally is the run's own and changes with it."""

    def advanced(self, tally: Tally) -> None:
        """The counts have changed."""

    def attempt_failed(self, line: AttemptLine) -> None:
        """An attempt at an item has failed; ``line`` says why."""

    def finished(self, result: ItemResult) -> None:
        """An item has been accepted or has failed."""

    def ended(self, result: GenerateResult) -> None:
        """The run is over."""


@dataclass(frozen=True)
class ReporterGroup:
    """Passes everything on to several observers."""

    reporters: Sequence[Reporter]

    def say(self, line: str) -> None:
        for reporter in self.reporters:
            reporter.say(line)

    def began(self, tally: Tally) -> None:
        for reporter in self.reporters:
            reporter.began(tally)

    def advanced(self, tally: Tally) -> None:
        for reporter in self.reporters:
            reporter.advanced(tally)

    def attempt_failed(self, line: AttemptLine) -> None:
        for reporter in self.reporters:
            reporter.attempt_failed(line)

    def finished(self, result: ItemResult) -> None:
        for reporter in self.reporters:
            reporter.finished(result)

    def ended(self, result: GenerateResult) -> None:
        for reporter in self.reporters:
            reporter.ended(result)


class AttemptLog(NamedTuple):
    """Logs failed attempts: those that are retried and, if ``failed`` is given, those with which an item failed.

    For each kind of problem, only the first ``limit`` lines are logged, and at the end the number of the others.
    """

    retried: Callable[[str], None]
    failed: Callable[[str], None] | None = None
    limit: int = FIRST_ATTEMPTS


class LogReporter:
    """Logs a run at the rate of ``cache.verbose``, and its failed attempts if there is an ``attempts`` log.

    While items finish, lines are at least ``pause`` (except the last) and at most about ``silence`` seconds apart.
    """

    def __init__(
        self,
        log: Callable[[str], None],
        verbose: int,
        *,
        pause: float = 0.0,
        silence: float = float("inf"),
        attempts: AttemptLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._verbose = verbose
        self._pause, self._silence, self._clock = pause, silence, clock
        self._logged_at = clock()
        self._pace = Pace(self._logged_at)
        self._attempts = attempts
        self._first = FirstOfEachKind(attempts.limit if attempts else 0)

    def say(self, line: str) -> None:
        if self._verbose:
            self._log(visible(line))

    def began(self, tally: Tally) -> None:
        self._logged_at = self._clock()
        self._pace = Pace(self._logged_at)

    def advanced(self, tally: Tally) -> None:
        """Log the counts if a line is due."""
        now = self._clock()
        self._pace.mark(now, tally.done)
        if self._is_due(now - self._logged_at, tally):
            self._logged_at = now
            self._log(progress_line(tally, self._pace))

    def _is_due(self, waited: float, tally: Tally) -> bool:
        every = progress_every_n(self._verbose, tally.total)
        if not every:
            return False
        if tally.done == tally.total:
            return True
        return waited >= self._silence or (tally.done % every == 0 and waited >= self._pause)

    def attempt_failed(self, line: AttemptLine) -> None:
        """Log the attempt if it is one of the first with its problem."""
        log = self._attempts and (self._attempts.failed if line.is_last else self._attempts.retried)
        if log and self._verbose and self._first.takes(line.kind):
            log(line.text)

    def finished(self, result: ItemResult) -> None:
        """Log nothing: an item's answer would be copied to wherever logs go."""

    def ended(self, result: GenerateResult) -> None:
        """Log how the run ended."""
        self.left_out()
        if self._verbose or result.tally.failed:
            self._log(end_line(result))

    def left_out(self) -> None:
        """Log how many failed attempts have no line."""
        for line in self._first.others():
            self._log(line)


def progress_line(tally: Tally, pace: Pace) -> str:
    causes = f" ({format_causes(tally.causes)})" if tally.causes else ""
    return (
        f"{tally.done}/{tally.total} done, {tally.accepted} accepted, {tally.failed} failed{causes}, "
        f"{tally.usage.total_tokens} tokens, {format_cost(tally.usage.cost_usd)}, {tally.cached + tally.found} from cache, "
        f"{tally.in_flight} in flight, {pace.per_second:.1f} items/s, {format_duration(pace.seconds_left(tally.total))} left"
    )


def end_line(result: GenerateResult) -> str:
    """Summarize the run's own items: ``Interrupted after 6.0 s: 4 of 49 items accepted. ...``"""
    tally, error = result.tally, result.error
    if not (tally.total or error):
        return f"Finished after {result.manifest.meta.elapsed_sec:.1f} s: nothing to generate."
    interrupted = isinstance(error, RunInterruptedError)
    end = "Interrupted" if interrupted else "Stopped" if error else "Finished"
    accepted = f"{tally.accepted + tally.found:,} of {counted(tally.total, 'item')} accepted"
    failed = f", {tally.failed:,} failed ({format_causes(tally.causes)})" if tally.failed else ""
    hint = " The next run continues from here." if interrupted else ""
    return f"{end} after {result.manifest.meta.elapsed_sec:.1f} s: {accepted}{failed}.{hint}"
