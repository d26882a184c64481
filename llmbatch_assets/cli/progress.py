"""The progress of a run in a terminal, and as plain lines where there is none."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from functools import cache

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from llmbatch_assets.cli.session import console
from llmbatch_assets.domain.progress import Pace, Tally, format_causes, format_duration
from llmbatch_assets.domain.usage import format_cost
from llmbatch_assets.stages.generate.progress import GenerateResult, LogReporter

BAR_CELLS = 28
REDRAWS_PER_SECOND = 4
# Who reads plain lines, of cron for one, is told in so many seconds, however few items end.
PLAIN_SILENCE_SEC = 60.0

# What people are told, for the log file: the terminal has had it already.
told = logging.getLogger("llmbatch_assets.told")


@cache
def screen() -> Console:
    """Where a run tells of itself: standard output, a terminal by a handle of its own.

    During a step Dagster sends standard output through a pipe; it must have been asked for before that.
    """
    if console.is_dumb_terminal or not sys.stdout.isatty():
        return console
    handle = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding, errors="replace")
    return Console(file=handle, highlight=False, markup=False, soft_wrap=True)


def tell(line: str, style: str = "") -> None:
    """Print a line and put it into the log file."""
    screen().print(line, style=style)
    told.info(line)


class Standing:
    """How a run stands at this moment, drawn anew whenever it is looked at."""

    def __init__(self, tally: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        self._tally = tally
        self._clock = clock
        self._pace = Pace(clock())
        self._spinner = Spinner("dots")

    def __rich__(self) -> RenderableType:
        tally = self._tally
        self._pace.mark(self._clock(), tally.done)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            self._spinner,
            ProgressBar(max(tally.total, 1), tally.done, width=BAR_CELLS),
            f"{tally.done}/{tally.total}",
            f"{self._pace.per_second:.1f} items/s",
            f"{format_duration(self._pace.seconds_left(tally.total))} left",
        )
        return Group(bar, self._counts(), self._spending())

    def _counts(self) -> Text:
        tally = self._tally
        causes = f" ({format_causes(tally.causes)})" if tally.causes else ""
        return Text.assemble(
            "  ",
            (f"{tally.accepted} accepted", "green"),
            "  ",
            (f"{tally.failed} failed{causes}", "red" if tally.failed else ""),
            f"  {tally.cached + tally.found} from cache  {tally.in_flight} in flight",
            no_wrap=True,
            overflow="ellipsis",
        )

    def _spending(self) -> Text:
        usage = self._tally.usage
        return Text(
            f"  {usage.input_tokens:,} input and {usage.output_tokens:,} output tokens  {format_cost(usage.cost_usd)}",
            no_wrap=True,
            overflow="ellipsis",
        )


class TerminalReporter:
    """A live display in a terminal, plain lines elsewhere; the same lines go to the log file, where there is one."""

    def __init__(self, verbose: int) -> None:
        self._console = screen()
        self._plain = LogReporter(self._console.print, verbose, silence=PLAIN_SILENCE_SEC)
        self._log = LogReporter(told.info, verbose, silence=PLAIN_SILENCE_SEC)
        self._live: Live | None = None
        self.outcome: GenerateResult | None = None

    def say(self, line: str) -> None:
        """Print a line, above the live display where there is one."""
        self._plain.say(line)
        self._log.say(line)

    def began(self, tally: Tally) -> None:
        """Show the display, which follows the tally from now on."""
        self._plain.began(tally)
        self._log.began(tally)
        if self._console is not console and tally.total:
            self._live = Live(
                Standing(tally), console=self._console, transient=True, refresh_per_second=REDRAWS_PER_SECOND
            )
            self._live.start()

    def advanced(self, tally: Tally) -> None:
        """Tell the new counts where nothing is displayed."""
        self._log.advanced(tally)
        if self._live is None:
            self._plain.advanced(tally)

    def ended(self, outcome: GenerateResult) -> None:
        """Take the display away and keep the outcome."""
        self.close()
        self._log.ended(outcome)
        self.outcome = outcome

    def close(self) -> None:
        """Take the display away."""
        if self._live is not None:
            self._live.stop()
            self._live = None
