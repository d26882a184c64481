"""All items: a fixed number of workers over one stream of jobs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from llmbatch_assets.engine.attempt import ItemResult, Job
from llmbatch_assets.engine.ports import Claims
from llmbatch_assets.engine.stop_rules import StopRules
from llmbatch_assets.engine.tally import Tally
from llmbatch_assets.errors import LlmBatchError, RunPermanentError

# How long to wait before looking again at items that another run works on.
LOOK_AGAIN_SEC = 0.5
# So long a call in flight may still take once the provider has ended the run: it hardly gets an answer.
LAST_CALLS_SEC = 20.0
# With these a run ends itself, and what is in flight will be good.
_OUR_OWN = {"budget", "too_many_failures", "dagster_storage"}


@dataclass
class BatchRun:
    """One run over a stream of jobs.

    ``on_result`` is called for each ended item, in the order in which they end, after its artifact is on disk. An
    ``LlmBatchError`` of it stops the run, and it is still called for what was in flight.
    Memory does not grow with the number of jobs: a job is made when a worker is free for it.
    """

    work_on: Callable[[Job], Awaitable[ItemResult]]
    max_workers: int
    tally: Tally
    stopped: asyncio.Event
    on_result: Callable[[ItemResult], None]
    claims: Claims
    rules: StopRules
    last_calls_sec: float = LAST_CALLS_SEC
    fault: LlmBatchError | None = None

    async def run(self, jobs: Iterable[Job]) -> LlmBatchError | None:
        """Work through the jobs. Returns what stopped the run before its end, if anything did."""
        queue, taken = iter(jobs), deque[Job]()
        async with asyncio.TaskGroup() as group:
            n_workers = min(self.max_workers, self.tally.total)
            workers = [group.create_task(self._worker(queue, taken)) for _ in range(n_workers)]
            watch = asyncio.create_task(self._end_last_calls(workers))
        watch.cancel()
        return self.fault

    async def _end_last_calls(self, workers: Iterable[asyncio.Task[None]]) -> None:
        await self.stopped.wait()
        if isinstance(self.fault, RunPermanentError) and self.fault.cause not in _OUR_OWN:
            await asyncio.sleep(self.last_calls_sec)
            for worker in workers:
                worker.cancel()

    async def _worker(self, queue: Iterable[Job], taken: deque[Job]) -> None:
        for job in queue:
            if self.stopped.is_set():
                return
            if not await self._claimed(job):
                taken.append(job)
        # What another run was working on: by now it is done, or that run is over and it is ours.
        while taken and not self.stopped.is_set():
            job = taken.popleft()
            if not await self._claimed(job):
                taken.append(job)
                await asyncio.sleep(LOOK_AGAIN_SEC)

    async def _claimed(self, job: Job) -> bool:
        """Work on the job, unless another run does."""
        if not self.claims.claim(job.cache_id):
            return False
        try:
            await self._one(job)
        finally:
            self.claims.release(job.cache_id)
        return True

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
        try:
            self.on_result(result)
        except LlmBatchError as fault:
            self._stop(fault)
            return
        broken = self.rules.broken_by(self.tally)
        if broken is not None:
            self._stop(broken)

    def _stop(self, fault: LlmBatchError) -> None:
        self.fault = self.fault or fault
        self.stopped.set()
