"""Output of a run: a live display or plain lines in the terminal, and the log file."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Collection
from functools import cache
from logging.handlers import RotatingFileHandler
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from llmbatch_assets.cli.results import print_results
from llmbatch_assets.cli.session import LOGGER, TextConsole, console, set_up_logging
from llmbatch_assets.domain.file_uses import OLD_LOGS
from llmbatch_assets.domain.outcome import ItemResult
from llmbatch_assets.domain.placeholders import ITEM_NAMES
from llmbatch_assets.domain.run.attempt_lines import AttemptLine, without_keys
from llmbatch_assets.domain.run.progress import Pace, Tally, format_causes, format_duration
from llmbatch_assets.domain.run.results import FirstResults, result_rows
from llmbatch_assets.domain.text import counted, visible
from llmbatch_assets.domain.usage import format_cost
from llmbatch_assets.errors import ConfigError
from llmbatch_assets.stages.generate.progress import AttemptLog, GenerateResult, LogReporter
from llmbatch_assets.stages.project import Batch, keys_in_use
from llmbatch_assets.stages.publish.export import notes_on_export

BAR_CELLS = 28
REDRAWS_PER_SECOND = 4
# Without a terminal, print progress at least this often.
PLAIN_SILENCE_SEC = 60.0

LARGEST_LOG_BYTES = 10_000_000

# Copies to the log file what has been printed.
printed = logging.getLogger("llmbatch_assets.terminal")
# Reports each artifact and export that was written, on standard output.
written = logging.getLogger("llmbatch_assets.written")


@cache
def screen() -> Console:
    """Standard output; if it is a terminal, through a duplicate of its descriptor.

    Dagster redirects standard output to a pipe during a step, so this must be called before the first step.
    """
    if console.is_dumb_terminal or not sys.stdout.isatty():
        return console
    handle = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding, errors="replace")
    return TextConsole(file=handle)


def report(line: str, style: str = "") -> None:
    """Print a line and copy it to the log file."""
    screen().print(line, style=style)
    printed.info(line)


def report_files(batch: Batch, assets: Collection[str]) -> None:
    """Print where a run of these assets has put its export and report."""
    layout, parameters = batch.layout, batch.parameters
    if "export" in assets:
        report(f"  export    {', '.join(str(layout.export(name)) for name in parameters.outputs.formats)}")
        for note in notes_on_export(batch):
            report(f"            {note}")
    if "report" in assets and parameters.report.enabled:
        report(f"  report    {layout.report('html' if parameters.report.write_html else 'md')}")
    report("  in Dagster: llmbatch ui")
    if parameters.llm.provider == "offline":
        report("made-up answers: export and report contain them until the next run with a model", style="bold")


def report_no_results(batch: Batch) -> None:
    """Say how to see outputs, after a run that was to show its results and had nothing to generate."""
    report(f"no new results to show. To see an existing output: llmbatch show ROW{_offline_option(batch)}")


def _offline_option(batch: Batch) -> str:
    return " --offline" if batch.parameters.llm.provider == "offline" else ""


class ProgressView:
    """Bar, counts and cost of a run. Each drawing shows the current numbers."""

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
        return Group(bar, self._counts(), self._usage())

    def _counts(self) -> Text:
        tally = self._tally
        causes = f" ({format_causes(tally.causes)})" if tally.causes else ""
        return _one_line(
            "  ",
            (f"{tally.accepted} accepted", "green"),
            "  ",
            (f"{tally.failed} failed{causes}", "red" if tally.failed else ""),
            f"  {tally.cached + tally.found} from cache  {tally.in_flight} in flight",
        )

    def _usage(self) -> Text:
        usage = self._tally.usage
        tokens = f"{usage.input_tokens:,} input and {usage.output_tokens:,} output tokens"
        return _one_line(f"  {tokens}  {format_cost(usage.cost_usd)}")


def _one_line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


class TerminalReporter:
    """Shows a live display in a terminal and plain lines elsewhere; copies the lines to the log file.

    Keeps the first ``n_shown`` results until they are shown.
    """

    def __init__(self, verbose: int, n_shown: int) -> None:
        self._console = screen()
        self._first = FirstResults(n_shown)
        plain, in_file = self._console.print, AttemptLog(printed.info, printed.warning, limit=sys.maxsize)
        self._plain = LogReporter(plain, verbose, silence=PLAIN_SILENCE_SEC, attempts=AttemptLog(plain, plain))
        self._log = LogReporter(printed.info, verbose, silence=PLAIN_SILENCE_SEC, attempts=in_file)
        self._live: Live | None = None
        self.outcome: GenerateResult | None = None

    def say(self, line: str) -> None:
        """Print a line, above the live display if there is one."""
        self._plain.say(line)
        self._log.say(line)

    def began(self, tally: Tally) -> None:
        """Start the live display, which follows the tally."""
        self._plain.began(tally)
        self._log.began(tally)
        if self._console is not console and tally.total:
            view = ProgressView(tally)
            self._live = Live(view, console=self._console, transient=True, refresh_per_second=REDRAWS_PER_SECOND)
            self._live.start()

    def advanced(self, tally: Tally) -> None:
        """Log the counts; print them if there is no live display."""
        self._log.advanced(tally)
        if self._live is None:
            self._plain.advanced(tally)

    def attempt_failed(self, line: AttemptLine) -> None:
        """Log the attempt; print the first few with each problem, above the live display if there is one."""
        self._log.attempt_failed(line)
        self._plain.attempt_failed(line)

    def finished(self, result: ItemResult) -> None:
        """Keep the result if it is one of the first in the table."""
        self._first.add(result)

    def ended(self, outcome: GenerateResult) -> None:
        """Remove the live display, print how many failed attempts were not printed, and keep the outcome for the summary."""
        self.close()
        self._log.ended(outcome)
        self._plain.left_out()
        self.outcome = outcome

    def show_results(self, batch: Batch) -> None:
        """Print the results that were kept; not to the log file, because answers may be confidential."""
        if self.outcome is None or not self._first.kept:
            return
        fields = batch.schema.output().json_schema["properties"]
        shows_context = not batch.generation_prompt.placeholders.isdisjoint(ITEM_NAMES)
        rows = result_rows(
            self._first.kept, self.outcome.items, fields, keys_in_use(batch), shows_context=shows_context
        )
        print_results(rows, self._console, shorten=self._console is not console)
        if more := self._first.n_others:
            self._console.print(f"{counted(more, 'more result')} not shown; to show all: --show {len(rows) + more}")
        self._console.print(f"everything about one item: llmbatch show {rows[0].name}{_offline_option(batch)}")

    def close(self) -> None:
        """Remove the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None


class _ConsoleLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        screen().print(record.getMessage())


class _RedactingFormatter(logging.Formatter):
    """Replaces each key by ``[key]``, and shows control characters as escapes."""

    def __init__(self, keys: Collection[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._keys = keys

    def format(self, record: logging.LogRecord) -> str:
        return visible(without_keys(super().format(record), self._keys))


def set_up_run_logging(batch: Batch) -> None:
    """Show log lines at ``run.log_level`` and copy them to ``run.log_file``, if set.

    Raises ``ConfigError`` if that file cannot be written.
    """
    set_up_logging(batch.parameters.run.log_level)
    path = batch.layout.log_file
    to_file = [_file_handler(batch, batch.path(path))] if path else []
    _replace_handlers(logging.getLogger(LOGGER), to_file)
    for logger, to_screen in ((printed, []), (written, [_ConsoleLines()])):
        # Keep these lines off standard error, to which logging also writes if a logger has no handler.
        logger.propagate = False
        _replace_handlers(logger, [*to_file, *to_screen] or [logging.NullHandler()])


def _replace_handlers(logger: logging.Logger, handlers: list[logging.Handler]) -> None:
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    for handler in handlers:
        logger.addHandler(handler)


def _file_handler(batch: Batch, path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(path, maxBytes=LARGEST_LOG_BYTES, backupCount=OLD_LOGS, encoding="utf-8")
    except OSError as refused:
        raise ConfigError(f"run.log_file is {path}, which cannot be written: {refused.strerror}") from refused
    handler.setFormatter(_RedactingFormatter(keys_in_use(batch)))
    return handler
