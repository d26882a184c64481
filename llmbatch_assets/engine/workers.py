"""The worker pool: a fixed number of workers over one stream of items."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from llmbatch_assets.domain.outcome import ItemResult
from llmbatch_assets.domain.run.progress import Tally, format_causes
from llmbatch_assets.domain.text import counted
from llmbatch_assets.engine.attempt import ItemTask
from llmbatch_assets.engine.ports import Claims
from llmbatch_assets.errors import LlmBatchError, RunPermanentError, StopCause

# Seconds between looks at items that another run has claimed.
CLAIM_POLL_SEC = 0.5
# Grace period for in-flight calls after a run-permanent error; they rarely succeed.
GRACE_PERIOD_SEC = 20.0
# Causes raised by us, not the provider: let in-flight calls finish.
_OWN_CAUSES = {StopCause.BUDGET, StopCause.TOO_MANY_FAILURES, StopCause.DAGSTER_STORAGE}

# The failure rate is not checked before this many items are done.
MIN_ITEMS_FOR_RATE = 20
HOPELESS_AFTER = 10


@dataclass(frozen=True)
class StopRules:
    """Limits on the failures of a run; 0 is no limit.

    A run also stops if its first ``HOPELESS_AFTER`` items all failed permanently with the same cause.
    """

    max_failures: int = 0
    max_failure_rate: float = 0.0

    def error_for(self, tally: Tally) -> RunPermanentError | None:
        """Return the error that stops the run, if a limit is reached."""
        causes = format_causes(tally.causes)
        if tally.accepted == 0 and tally.failed_permanently >= HOPELESS_AFTER and len(tally.causes) == 1:
            return RunPermanentError(
                StopCause.HOPELESS,
                f"the first {tally.failed} items all failed permanently with the same cause ({causes}). "
                "Look at a failure file, fix the prompt or the settings, and run again with --retry-failed.",
            )
        rate = tally.failed / tally.done if tally.done else 0.0
        if self.max_failures and tally.failed >= self.max_failures:
            return RunPermanentError(
                StopCause.TOO_MANY_FAILURES,
                f"{counted(tally.failed, 'item')} failed ({causes}); llm.max_failures is {self.max_failures}",
            )
        if self.max_failure_rate and tally.done >= MIN_ITEMS_FOR_RATE and rate > self.max_failure_rate:
            return RunPermanentError(
                StopCause.TOO_MANY_FAILURES,
                f"{tally.failed} of {counted(tally.done, 'item')} failed ({causes}); "
                f"llm.max_failure_rate is {self.max_failure_rate:g}",
            )
        return None


@dataclass
class WorkerPool:
    """The workers of one run.

    ``on_result`` is called for each finished item, in the order in which items finish, after its artifact is on disk.
    If it raises an ``LlmBatchError``, the run stops, and it is still called for items in flight.
    Tasks are created when a worker is free, so memory does not grow with their number.
    """

    process: Callable[[ItemTask], Awaitable[ItemResult]]
    max_workers: int
    tally: Tally
    stopped: asyncio.Event
    on_result: Callable[[ItemResult], None]
    claims: Claims
    rules: StopRules
    grace_period_sec: float = GRACE_PERIOD_SEC
    error: LlmBatchError | None = None

    async def process_all(self, tasks: Iterable[ItemTask]) -> LlmBatchError | None:
        """Process the tasks. Returns the error that stopped the run before its end, if any."""
        queue, claimed_elsewhere = iter(tasks), deque[ItemTask]()
        async with asyncio.TaskGroup() as group:
            n_workers = min(self.max_workers, self.tally.total)
            workers = [group.create_task(self._worker(queue, claimed_elsewhere)) for _ in range(n_workers)]
            watch = asyncio.create_task(self._cancel_after_grace_period(workers))
        watch.cancel()
        return self.error

    async def _cancel_after_grace_period(self, workers: Iterable[asyncio.Task[None]]) -> None:
        await self.stopped.wait()
        if isinstance(self.error, RunPermanentError) and self.error.cause not in _OWN_CAUSES:
            await asyncio.sleep(self.grace_period_sec)
            for worker in workers:
                worker.cancel()

    async def _worker(self, queue: Iterable[ItemTask], claimed_elsewhere: deque[ItemTask]) -> None:
        for task in queue:
            if self.stopped.is_set():
                return
            if not await self._process_if_free(task):
                claimed_elsewhere.append(task)
        # Wait until the other run has finished these items or is gone.
        while claimed_elsewhere and not self.stopped.is_set():
            task = claimed_elsewhere.popleft()
            if not await self._process_if_free(task):
                claimed_elsewhere.append(task)
                await asyncio.sleep(CLAIM_POLL_SEC)

    async def _process_if_free(self, task: ItemTask) -> bool:
        """Process the task unless another run has claimed its item. Returns whether it was processed."""
        if not self.claims.claim(task.cache_id):
            return False
        try:
            await self._process(task)
        finally:
            self.claims.release(task.cache_id)
        return True

    async def _process(self, task: ItemTask) -> None:
        self.tally.in_flight += 1
        try:
            result = await self.process(task)
        except LlmBatchError as error:
            self._stop(error)
            return
        except OSError as error:
            self._stop(RunPermanentError(StopCause.DISK, f"an artifact cannot be read or written: {error}"))
            return
        finally:
            self.tally.in_flight -= 1
        self._record(result)

    def _record(self, result: ItemResult) -> None:
        self.tally.count(result)
        error: LlmBatchError | None
        try:
            self.on_result(result)
            error = self.rules.error_for(self.tally)
        except LlmBatchError as raised:
            error = raised
        if error is not None:
            self._stop(error)

    def _stop(self, error: LlmBatchError) -> None:
        self.error = self.error or error
        self.stopped.set()
