"""Calls with retries: one loop for all providers, for generations, verdicts and schemas."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    wait_exponential,
    wait_random,
)

from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.engine.ports import ChatClient
from llmbatch_assets.engine.stops import CallInProgress, Outages, is_timeout
from llmbatch_assets.errors import (
    FormatRefusedError,
    ItemPermanentError,
    RunPermanentError,
    StopCause,
    TransientError,
)

FIRST_WAIT_SEC = 0.5
MAX_WAIT_SEC = 30.0
MAX_RETRY_AFTER_SEC = 120.0
# Each call that times out may be billed.
MAX_TIMEOUT_RETRIES = 2

_backoff = wait_exponential(multiplier=FIRST_WAIT_SEC, max=MAX_WAIT_SEC) + wait_random(0, FIRST_WAIT_SEC)


def is_free(error: BaseException) -> bool:
    """Return whether an error is transient and its call used no tokens, as far as we know."""
    if not isinstance(error, TransientError):
        return False
    return not (isinstance(error.usage, TokenUsage) and error.usage.total_tokens)


@dataclass(frozen=True)
class RetryingCalls:
    """Makes the calls of one run. No call begins once the run is ``stopped``."""

    transport_retries: int
    stopped: asyncio.Event
    outages: Outages = field(default_factory=Outages)

    async def ask(self, client: ChatClient, request: ChatRequest) -> Completion:
        """Return the answer after at most ``transport_retries`` retries, with backoff or as the server asked.

        If several items in a row fail, the call keeps retrying until the server answers again or ``outages`` stops the
        run. Raises the last ``TransientError``. Raises any other ``ProviderError`` at once, and also a ``TransientError`` of
        a call that used tokens: it was billed, and counts as an attempt of its item. A stopped run ends the backoff.
        """
        with self.outages.watching(request) as call:
            try:
                return await self._ask(client, request, call)
            except ItemPermanentError as error:
                call.record_refusal(error)
                raise

    async def _ask(self, client: ChatClient, request: ChatRequest, call: CallInProgress) -> Completion:
        tries = _Tries(self, client, request, call)
        try:
            # Most calls succeed, and setting up tenacity costs more than all other work on an item.
            return await tries.next()
        except TransientError as error:
            if not is_free(error):
                call.record_unusable_reply(error)
                raise
            failed = [error]

        async def call_again() -> Completion:
            # The retry loop counts and times the first call, too.
            if failed:
                raise failed.pop()
            return await tries.next()

        retrying = AsyncRetrying(
            retry=retry_if_exception(is_free),
            stop=tries.are_used_up,
            wait=tries.wait,
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return await retrying(call_again)
        except TransientError as error:
            if not is_free(error):
                call.record_unusable_reply(error)
                raise
            call.record_last_fault(error)
            # The worker's next call must not start earlier than the server asked.
            await self.sleep(min(error.retry_after or 0.0, MAX_RETRY_AFTER_SEC))
            raise

    async def sleep(self, seconds: float) -> None:
        """Wait, unless the run is stopped in the meantime."""
        await wait_for_any(self.stopped, timeout=seconds)


@dataclass
class _Tries:
    """The tries of one call."""

    calls: RetryingCalls
    client: ChatClient
    request: ChatRequest
    call: CallInProgress
    timeouts: int = 0

    async def next(self) -> Completion:
        begun = asyncio.get_running_loop().time()
        request = replace(self.request, timeout_factor=2**self.timeouts) if self.timeouts else self.request
        while not self.calls.stopped.is_set():
            try:
                completion = await self.client.complete(request)
            except FormatRefusedError:
                continue
            except TransientError as error:
                self.timeouts += is_timeout(error)
                self.call.record_fault(error)
                raise
            self.call.record_answer(begun, completion)
            return completion
        raise RunPermanentError(StopCause.STOPPED, "the run was stopped")

    def are_used_up(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, TransientError)
        is_last = state.attempt_number > self.calls.transport_retries
        if is_timeout(error):
            return is_last or self.timeouts > MAX_TIMEOUT_RETRIES
        return is_last and not self.call.is_shared

    def wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        requested = error.retry_after if isinstance(error, TransientError) else None
        backoff = float(_backoff(state))
        if requested is None:
            return backoff
        # During an outage, Retry-After: 0 would mean retrying without a pause.
        is_extra = state.attempt_number > self.calls.transport_retries
        return min(max(requested, backoff) if is_extra else requested, MAX_RETRY_AFTER_SEC)


async def wait_for_any(*events: asyncio.Event, timeout: float | None = None) -> None:  # noqa: ASYNC109  # no error
    """Return once one of the events is set, or after the timeout in seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
