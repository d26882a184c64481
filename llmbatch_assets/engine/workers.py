"""The worker pool: a fixed number of workers over one stream of items."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from llmbatch_assets.domain.outcome import FailedAttempt, ItemResult
from llmbatch_assets.domain.run.progress import Tally
from llmbatch_assets.engine.attempt import ItemTask
from llmbatch_assets.engine.ports import Claims
from llmbatch_assets.engine.stops import Outages, StopRules
from llmbatch_assets.errors import LlmBatchError, RunPermanentError, StopCause

Returned = TypeVar("Returned")

# Seconds between looks at items that another run has claimed.
CLAIM_POLL_SEC = 0.5
# Grace period for in-flight calls after a run-permanent error; they rarely succeed.
GRACE_PERIOD_SEC = 20.0
# Causes raised by us, not the provider: let in-flight calls finish.
_OWN_CAUSES = {StopCause.BUDGET, StopCause.TOO_MANY_FAILURES, StopCause.DAGSTER_STORAGE}


@dataclass
class WorkerPool:
    """The workers of one run.

    ``on_result`` is called for each finished item, in the order in which items finish, after its artifact is on disk.
    If it raises an ``LlmBatchError``, the run stops, and it is still called for items in flight.
    Tasks are created when a worker is free, so memory does not grow with their number.

    A failure that may affect every item is saved only once another call has been answered or the run has finished. If
    the run stops before that, the item counts as not attempted. If the item has attempts left, they are made then.
    """

    process: Callable[[ItemTask], Awaitable[ItemResult]]
    max_workers: int
    tally: Tally
    stopped: asyncio.Event
    on_result: Callable[[ItemResult], None]
    claims: Claims
    rules: StopRules
    outages: Outages
    save_failure: Callable[[FailedAttempt], Awaitable[None]]
    grace_period_sec: float = GRACE_PERIOD_SEC
    error: LlmBatchError | None = None
    _undecided: list[ItemResult] = field(default_factory=list)
    _deferred: deque[ItemTask] = field(default_factory=deque)

    async def process_all(self, tasks: Iterable[ItemTask]) -> LlmBatchError | None:
        """Process the tasks. Returns the error that stopped the run before its end, if any."""
        await self._process_each(tasks)
        self.error = self.error or self.outages.error_at_end()
        if self.error is None and not self.stopped.is_set() and self._deferred:
            deferred, self._deferred = self._deferred, deque()
            await self._process_each(deferred)
            self.error = self.error or self.outages.error_at_end()
        if self.error is None and not self.stopped.is_set():
            await self._settle(lambda: self._record_own_failures(at_end=True))
        return self.error

    async def _process_each(self, tasks: Iterable[ItemTask]) -> None:
        queue, claimed_elsewhere = iter(tasks), deque[ItemTask]()
        async with asyncio.TaskGroup() as group:
            n_workers = min(self.max_workers, self.tally.total)
            workers = [group.create_task(self._worker(queue, claimed_elsewhere)) for _ in range(n_workers)]
            watch = asyncio.create_task(self._cancel_after_grace_period(workers))
        watch.cancel()

    async def _cancel_after_grace_period(self, workers: Iterable[asyncio.Task[None]]) -> None:
        await self.stopped.wait()
        if isinstance(self.error, RunPermanentError) and self.error.cause not in _OWN_CAUSES:
            await asyncio.sleep(self.grace_period_sec)
            for worker in workers:
                worker.cancel()

    async def _worker(self, queue: Iterable[ItemTask], claimed_elsewhere: deque[ItemTask]) -> None:
        for task in self._with_deferred(queue):
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

    def _with_deferred(self, queue: Iterable[ItemTask]) -> Iterator[ItemTask]:
        """Yield the tasks of the queue, and the deferred ones as soon as a call has been answered."""
        for task in queue:
            yield task
            while self._deferred and self._is_own_failure(self._deferred[0].deferred):
                yield self._deferred.popleft()

    def _is_own_failure(self, result: ItemResult | None) -> bool:
        suspected = result.suspected_outage if result else None
        return suspected is None or self.outages.is_refuted(suspected)

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
            result = await self._settle(lambda: self.process(task))
        finally:
            self.tally.in_flight -= 1
        if result is not None and result.suspected_outage is None:
            self._record(result)
        elif result is not None and result.is_deferred:
            self._deferred.append(replace(task, deferred=result))
        elif result is not None:
            self._undecided.append(result)
        if self._undecided:
            await self._settle(self._record_own_failures)

    async def _settle(self, work: Callable[[], Awaitable[Returned]]) -> Returned | None:
        """Return the result of working on items, or None after an error that stops the run."""
        try:
            return await work()
        except LlmBatchError as error:
            self._stop(error)
        except OSError as error:
            self._stop(_file_error(error))
        return None

    async def _record_own_failures(self, *, at_end: bool = False) -> None:
        """Save and record the failures that the items themselves have turned out to cause."""
        results, self._undecided = self._undecided, []
        for result in results:
            assert result.failed is not None
            if at_end or self._is_own_failure(result):
                await self.save_failure(result.failed)
                self._record(result)
            else:
                self._undecided.append(result)

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


def _file_error(error: OSError) -> RunPermanentError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return RunPermanentError(
            StopCause.OPEN_FILES,
            f"too many open files ({error}); lower llm.max_workers, or raise the limit with ulimit -n",
        )
    return RunPermanentError(StopCause.DISK, f"an artifact cannot be read or written: {error}")
