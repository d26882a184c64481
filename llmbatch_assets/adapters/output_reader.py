"""The accepted outputs of a batch, read one by one in the order of its work items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmbatch_assets.adapters.output_store import FileStore
from llmbatch_assets.domain.identity import BatchIdentity
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.domain.work import WorkItem


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

    def __iter__(self) -> Iterator[tuple[WorkItem, AcceptedOutput]]:
        for item in self.items:
            output = self.output(item)
            if output is not None:
                yield item, output
