"""The progress of a run in a terminal, and as plain lines where there is none."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from llmbatch_assets.domain.cost import shown
from llmbatch_assets.engine.tally import Tally
from llmbatch_assets.resources.generation import LogReporter, Outcome


class TerminalReporter:
    """A live line: done, accepted, failed, rate, tokens, cost, time left."""

    def __init__(self, console: Console, verbose: int) -> None:
        self._console = console
        self._plain = LogReporter(console.print, verbose)
        self.outcome: Outcome | None = None
        self._started = False
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("[green]{task.fields[accepted]} accepted[/] [red]{task.fields[failed]} failed[/]"),
            TextColumn("{task.fields[rate]:.1f}/s {task.fields[tokens]} tokens {task.fields[cost]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("items", start=False, accepted=0, failed=0, rate=0.0, tokens=0, cost="")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._plain.say(line)

    def advanced(self, tally: Tally) -> None:
        """Show the new counts."""
        if not self._console.is_terminal:
            self._plain.advanced(tally)
            return
        if not self._started:
            self._started = True
            self._progress.start()
            self._progress.start_task(self._task)
        self._progress.update(
            self._task,
            completed=tally.done,
            total=tally.total,
            accepted=tally.accepted,
            failed=tally.failed,
            rate=self._progress.tasks[0].speed or 0.0,
            tokens=tally.usage.total_tokens,
            cost=shown(tally.usage.cost_usd),
        )

    def ended(self, outcome: Outcome) -> None:
        """Take the live line away and keep the outcome."""
        self.close()
        self.outcome = outcome

    def close(self) -> None:
        """Take the live line away."""
        if self._started:
            self._progress.stop()
