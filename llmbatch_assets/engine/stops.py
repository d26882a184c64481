"""When a run stops early: too many items failed, or no call is answered any more.

Many refusals and faults are not the item's own: the credit has run out, the server is down. They have in common that
several items in a row get them and that no call is answered in between. Wordings and codes are not looked at here.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from llmbatch_assets.domain.outcome import Suspicion
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.run.progress import Tally, format_causes
from llmbatch_assets.domain.text import counted
from llmbatch_assets.errors import (
    FailureCause,
    ItemPermanentError,
    ProviderError,
    RunPermanentError,
    StopCause,
    TransientError,
)

# A failure that fewer items share may be their own.
SEVERAL = 3
# Seconds without an answer after which a server that breaks connections or answers 5xx counts as down.
DOWN_SEC = 30.0
GIVE_UP_AFTER_SEC = 600.0
# Rows with the same defect often follow each other, and each worker may have met one.
MIN_SAME_REFUSALS = 5
# Each of these replies is billed.
MAX_UNUSABLE_REPLIES = 5
REFUSALS_PER_WORKER = 2

# The failure rate is not checked before this many items are done.
MIN_ITEMS_FOR_RATE = 20
HOPELESS_AFTER = 10

# The server asks to wait. 529 is Anthropic's.
_BUSY_STATUSES = {503, 529}
# Something between us and the model waited in vain. 524 is Cloudflare's.
_TIMEOUT_STATUSES = {408, 504, 524}
# Parts of a message that differ between items: quotations, and words with digits.
_OF_ONE_ITEM = re.compile(r"""".*?"|'.*?'|`.*?`|\S*\d\S*""", re.DOTALL)


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


def is_timeout(error: ProviderError) -> bool:
    """Return whether a call took too long. The model may have worked on it, and the provider may bill it."""
    return error.cause == FailureCause.TIMEOUT or error.status in _TIMEOUT_STATUSES


class _Refusal(NamedTuple):
    item: str
    at: float
    message: str
    # Equal for the same refusal of different items.
    kind: str


@dataclass
class _Line:
    """The calls to one model of one server: what has failed since the last answer."""

    # The latest beginning of a call that was answered.
    answered_from: float = -math.inf
    failing_since: float = math.nan
    failing: set[str] = field(default_factory=set)
    timed_out: set[str] = field(default_factory=set)
    unusable: set[str] = field(default_factory=set)
    refusals: list[_Refusal] = field(default_factory=list)
    in_progress: int = 0
    in_progress_failed: int = 0

    def record_answer(self, begun: float) -> None:
        self.failing.clear()
        self.timed_out.clear()
        self.unusable.clear()
        self.answered_from = max(self.answered_from, begun)
        # An answer to an earlier call says nothing about the server at the time of a refusal.
        self.refusals = [one for one in self.refusals if one.at >= self.answered_from]


@dataclass(frozen=True)
class OutageLimits:
    """Limits of a run on failures in a row. ``same_refusals`` is 0 if refusals are always the items' own."""

    give_up_after_sec: float = GIVE_UP_AFTER_SEC
    same_refusals: int = 0

    @classmethod
    def of(cls, give_up_after_sec: float, max_workers: int, *, stop_on_same_refusal: bool) -> OutageLimits:
        refusals = max(MIN_SAME_REFUSALS, REFUSALS_PER_WORKER * max_workers)
        return cls(give_up_after_sec, refusals if stop_on_same_refusal else 0)


class CallInProgress:
    """One call with its retries."""

    def __init__(self, outages: Outages, request: ChatRequest) -> None:
        self._limits, self._line = outages.limits, outages.line(request.purpose)
        self._item = request.subject.work_id if request.subject else ""
        self._purpose = request.purpose
        self._failed_at = math.nan

    @property
    def has_failed(self) -> bool:
        return not math.isnan(self._failed_at)

    @property
    def is_shared(self) -> bool:
        """Whether several items in a row have failed like this one, so that its failure is hardly its own."""
        return len(self._line.failing) >= SEVERAL

    def record_answer(self, begun: float) -> None:
        """Record that the call, which began at this time, was answered."""
        self._line.record_answer(begun)

    def record_fault(self, error: TransientError) -> None:
        """Record that the call failed. Raises ``RunPermanentError`` if no call has been answered for too long."""
        now, line = _now(), self._line
        if error.cause == FailureCause.NOT_JSON:
            # The model has answered.
            line.record_answer(now)
            return
        if not self.has_failed:
            self._failed_at = now
            line.in_progress_failed += 1
        if not line.failing:
            line.failing_since = now
        line.failing.add(self._item)
        if self.is_shared and not is_timeout(error):
            self._require_patience(error, now - line.failing_since)

    def _require_patience(self, error: TransientError, seconds: float) -> None:
        limit = self._limits.give_up_after_sec
        if error.cause == FailureCause.RATE_LIMITED or error.status in _BUSY_STATUSES:
            if seconds >= limit:
                raise RunPermanentError(
                    StopCause.GAVE_UP,
                    f"no call has been answered for {_duration(seconds)} (llm.give_up_after); the last reply was "
                    f"{error}. Run again when the provider takes calls; no item was recorded as failed for this.",
                )
        elif seconds >= min(DOWN_SEC, limit) and self._line.in_progress_failed == self._line.in_progress:
            raise RunPermanentError(
                StopCause.SERVER_DOWN,
                f"no call has been answered for {_duration(seconds)}, and {counted(len(self._line.failing), 'item')} in "
                f"a row failed; the last failure was: {error}. Check the server, then run again; no item was recorded "
                "as failed for this.",
            )

    def record_last_fault(self, error: TransientError) -> None:
        """Record that there are no more retries. Raises ``RunPermanentError`` if all calls time out."""
        error.suspicion = self._suspicion(self._failed_at)
        if not is_timeout(error):
            return
        self._line.timed_out.add(self._item)
        if len(self._line.timed_out) >= SEVERAL:
            raise RunPermanentError(
                StopCause.TOO_SLOW,
                f"{counted(len(self._line.timed_out), 'item')} in a row timed out, each of them repeatedly ({error}). "
                "The provider may bill these calls. Raise llm.timeout_sec, or lower llm.max_workers or "
                "llm.max_output_tokens, then run again.",
            )

    def record_unusable_reply(self, error: TransientError) -> None:
        """Record a reply that was billed but holds no answer. Raises ``RunPermanentError`` if all replies are such."""
        self._line.unusable.add(self._item)
        if len(self._line.unusable) >= MAX_UNUSABLE_REPLIES:
            raise RunPermanentError(
                StopCause.UNUSABLE_REPLIES,
                f"{counted(len(self._line.unusable), 'item')} in a row got replies that are billed but hold no answer (the "
                f"last one: {error}). Check llm.base_url, llm.model_name and llm.extra_body, then run again.",
            )

    def record_refusal(self, error: ItemPermanentError) -> None:
        """Record that the provider refused the item. Raises ``RunPermanentError`` if it refuses all of them alike."""
        now, line = _now(), self._line
        if error.cause != FailureCause.BAD_REQUEST:
            # Filters and models read the item before they refuse it, so others can be answered.
            line.record_answer(now)
            return
        if not self._limits.same_refusals:
            return
        error.suspicion = self._suspicion(now)
        line.refusals.append(_Refusal(self._item, now, str(error), _kind(error)))
        same = {one.item for one in line.refusals if one.kind == line.refusals[-1].kind}
        if len(same) >= self._limits.same_refusals:
            raise _same_refusal(len(same), str(error))
        refused = {one.item for one in line.refusals}
        if line.answered_from == -math.inf and len(refused) >= max(HOPELESS_AFTER, self._limits.same_refusals):
            raise RunPermanentError(
                StopCause.HOPELESS,
                f"the first {len(refused)} items were all refused, the last one with: {error}. Correct the prompt or the "
                "settings, then run again; none of them was recorded as failed.",
            )

    def _suspicion(self, at: float) -> Suspicion | None:
        return Suspicion(self._purpose, at) if self._line.answered_from <= at else None


class Outages:
    """Watches the calls of one run for failures that several items in a row have."""

    def __init__(self, limits: OutageLimits | None = None) -> None:
        self.limits = limits or OutageLimits()
        self._lines: dict[str, _Line] = {}

    def line(self, purpose: str) -> _Line:
        return self._lines.setdefault(purpose, _Line())

    @contextmanager
    def watching(self, request: ChatRequest) -> Iterator[CallInProgress]:
        """Watch a call with its retries."""
        call, line = CallInProgress(self, request), self.line(request.purpose)
        line.in_progress += 1
        try:
            yield call
        finally:
            line.in_progress -= 1
            line.in_progress_failed -= call.has_failed

    def is_cleared(self, suspicion: Suspicion) -> bool:
        """Return whether a failure is the item's own: a call that began after it has been answered."""
        return self.line(suspicion.purpose).answered_from > suspicion.at

    def error_at_end(self) -> RunPermanentError | None:
        """Return the error of a run whose last items were all refused alike, as too few for ``record_refusal``."""
        for line in self._lines.values():
            for last in line.refusals:
                same = {one.item for one in line.refusals if one.kind == last.kind}
                if len(same) >= SEVERAL:
                    return _same_refusal(len(same), last.message)
        return None


def _now() -> float:
    return asyncio.get_running_loop().time()


def _kind(error: ProviderError) -> str:
    return f"{error.status} {_OF_ONE_ITEM.sub('#', str(error))}"


def _same_refusal(count: int, message: str) -> RunPermanentError:
    return RunPermanentError(
        StopCause.SAME_REFUSAL,
        f"{counted(count, 'item')} in a row were refused with the same message ({message}), so probably every item would "
        "be. None of them was recorded as failed. Correct what the message names, then run again; if these rows are at "
        "fault, set llm.stop_on_same_refusal: false.",
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
