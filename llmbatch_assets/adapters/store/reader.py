"""The accepted outputs of a batch, read one by one in the order of its work items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmbatch_assets.adapters.store.outputs import FileStore
from llmbatch_assets.domain.export.records import ItemOutcome, OutdatedOutput
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt


@dataclass(frozen=True)
class OutputReader:
    """Outputs of the current identity. Holds no output in memory and can be gone through again."""

    store: FileStore
    identity: BatchIdentity
    items: list[WorkItem]
    plan_warnings: Sequence[str] = ()

    def output(self, item: WorkItem) -> AcceptedOutput | None:
        """The item's accepted output."""
        return self.store.accepted(self.identity.cache_id(item.work_id))

    def failure(self, item: WorkItem) -> FailedAttempt | None:
        """The item's latest failed attempt."""
        return self.store.last_failure(self.identity.cache_id(item.work_id))

    def failures(self, item: WorkItem) -> list[FailedAttempt]:
        """The item's failed attempts, the latest last."""
        return list(self.store.failed_attempts(self.identity.cache_id(item.work_id)))

    def item_outcomes(
        self, older: Callable[[WorkItem], OutdatedOutput | None], shown: Callable[[Path], str] = str
    ) -> Iterator[ItemOutcome]:
        """How each item stands, reading each artifact once.

        ``older`` is asked about items without an output; ``shown`` gives the name under which a file is told of.
        """
        for item in self.items:
            output = self.output(item)
            failure = None if output else self.failure(item)
            if output:
                yield ItemOutcome(item, output)
            elif failure:
                path = self.store.failure_path(failure.meta["cache_id"], failure.meta["attempt_outer"])
                yield ItemOutcome(item, None, failure, shown(path), older(item))
            else:
                yield ItemOutcome(item, older=older(item))

    def __iter__(self) -> Iterator[tuple[WorkItem, AcceptedOutput]]:
        for item in self.items:
            output = self.output(item)
            if output is not None:
                yield item, output
