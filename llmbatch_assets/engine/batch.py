"""All items: a fixed number of workers over one stream of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from llmbatch_assets.domain.outcome import TokenUsage
from llmbatch_assets.engine.attempt import ItemResult, Job
from llmbatch_assets.errors import LlmBatchError, RunPermanentError


@dataclass
class Tally:
    """How a run stands. Counts of items, but for ``usage``."""

    total: int
    accepted: int = 0
    failed: int = 0
    in_flight: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    usage: TokenUsage = field(default_factory=TokenUsage)

    @property
    def done(self) -> int:
        return self.accepted + self.failed

    def count(self, result: ItemResult) -> None:
        """Take one ended item into the counts."""
        self.usage += result.usage
        if result.failed is None:
            self.accepted += 1
        else:
            self.failed += 1
            self.causes[result.failed.cause] = self.causes.get(result.failed.cause, 0) + 1


@dataclass
class BatchRun:
    """One run over a stream of jobs.

    ``on_result`` is called for each ended item, in the order in which they end, after its artifact is on disk.
    Memory does not grow with the number of jobs: a job is made when a worker is free for it.
    """

    work_on: Callable[[Job], Awaitable[ItemResult]]
    max_workers: int
    tally: Tally
    stopped: asyncio.Event
    on_result: Callable[[ItemResult], None]
    fault: LlmBatchError | None = None

    async def run(self, jobs: Iterable[Job]) -> LlmBatchError | None:
        """Work through the jobs. Returns what stopped the run before its end, if anything did."""
        queue = iter(jobs)
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self.max_workers, self.tally.total)):
                workers.create_task(self._worker(queue))
        return self.fault

    async def _worker(self, queue: Iterable[Job]) -> None:
        for job in queue:
            if self.stopped.is_set():
                return
            await self._one(job)

    async def _one(self, job: Job) -> None:
        self.tally.in_flight += 1
        try:
            result = await self.work_on(job)
        except LlmBatchError as fault:
            self._stop(fault)
            return
        except OSError as fault:
            self._stop(RunPermanentError("disk", f"an artifact cannot be written: {fault}"))
            return
        finally:
            self.tally.in_flight -= 1
        self.tally.count(result)
        self.on_result(result)

    def _stop(self, fault: LlmBatchError) -> None:
        self.fault = self.fault or fault
        self.stopped.set()
