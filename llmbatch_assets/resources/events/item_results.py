"""Reports the result of each item of a run: an event on its partition and, for failures, a line in the run's log."""

from collections.abc import Callable
from pathlib import Path

from llmbatch_assets.domain.item_state import ItemState
from llmbatch_assets.domain.outcome import FailedAttempt, ItemResult
from llmbatch_assets.domain.report.item_facts import failure_line
from llmbatch_assets.domain.text import counted
from llmbatch_assets.resources.events.item_events import FailedEvent
from llmbatch_assets.resources.events.partition_events import PartitionEvents
from llmbatch_assets.stages.generate.choice import BatchItems

# More lines help nobody, and each is a commit of Dagster's database.
MAX_FAILURE_LINES = 100


class ItemResults:
    """Takes the results of one run. ``log_error`` writes a line to the run's log."""

    def __init__(self, events: PartitionEvents, items: BatchItems, log_error: Callable[[str], None]) -> None:
        self._events = events
        self._items = items
        self._log_error = log_error
        self._n_failed = 0

    def add(self, result: ItemResult) -> None:
        """Report an item that was accepted or failed."""
        item, items = result.item, self._items
        if result.accepted is not None:
            usage = result.accepted.usage if result.found else items.usage(item, result.usage)
            self._events.add_materialized(item, result.accepted, hit=result.found, usage=usage)
        elif result.failed is not None:
            self._add_failed(result, result.failed)

    def _add_failed(self, result: ItemResult, failure: FailedAttempt) -> None:
        self._n_failed += 1
        if self._n_failed <= MAX_FAILURE_LINES:
            self._log_error(failure_line(result.item, failure))
        usage = self._items.usage(result.item, result.usage)
        self._events.add_failure(FailedEvent.of(result.item, failure, self._file(failure), self._shown(result), usage))

    def end(self) -> None:
        """Log how many failures have no line."""
        if (more := self._n_failed - MAX_FAILURE_LINES) > 0:
            self._log_error(
                f"... and {counted(more, 'more failed item')}. Run `{self._status_command}` for all causes."
            )

    @property
    def _status_command(self) -> str:
        return self._items.batch.command.replace("llmbatch run", "llmbatch status", 1)

    def _file(self, failure: FailedAttempt) -> str:
        store = self._items.store
        path: Path = store.index.failure_path(failure.meta["cache_id"], failure.meta["attempt_outer"])
        return self._items.batch.shown(path) if store.keep_failures else ""

    def _shown(self, result: ItemResult) -> str:
        """Describe the output that Dagster still shows for a failed item."""
        before: ItemState = self._items.states[result.item.partition_key]
        if before == "accepted":
            return "The current output. Only its regeneration failed."
        outdated = self._items.outdated(result.item)
        if outdated is None:
            return ""
        return f"Made with earlier settings (since changed: {outdated.differs_in}) and not exported: {outdated.path}"
