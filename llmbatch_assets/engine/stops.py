"""Stop a run early: too many items failed, or calls are no longer answered.

Many failures are not caused by the item: the credit has run out, or the server is down. Such failures hit several items
in a row, with no answered call in between. This module only looks at that pattern, not at messages or codes.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from llmbatch_assets.domain.outcome import Completion, SuspectedOutage
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

# If fewer items fail in the same way, the items themselves may be the cause.
SEVERAL = 3
# Seconds without an answer after which a server that breaks connections or answers 5xx counts as down.
DOWN_SEC = 30.0
GIVE_UP_AFTER_SEC = 600.0
# Rows with the same defect often follow each other, and each worker may be working on one.
MIN_SAME_REFUSALS = 5
# Once a call has been answered. Before that, SEVERAL are enough: each of these replies is billed.
MAX_UNUSABLE_REPLIES = 5
UNUSABLE_ADVICE = "Check llm.base_url, llm.model_name, llm.max_output_tokens and llm.extra_body"
REFUSALS_PER_WORKER = 2

# The failure rate is not checked before this many items are done.
MIN_ITEMS_FOR_RATE = 20
HOPELESS_AFTER = 10

# The server is busy and asks to wait. 529 is Anthropic's.
_BUSY_STATUSES = {503, 529}
# A proxy or gateway timed out while waiting for the model. 524 is Cloudflare's.
_TIMEOUT_STATUSES = {408, 504, 524}
# Parts of a message that differ between items: quoted text, and words with digits.
_ITEM_SPECIFIC = re.compile(r"""".*?"|'.*?'|`.*?`|\S*\d\S*""", re.DOTALL)


@dataclass(frozen=True)
class StopRules:
    """Limits on the failures of a run; 0 is no limit.

    A run also stops if its first ``HOPELESS_AFTER`` items all failed permanently with the same cause.
    """

    max_failures: int = 0
    max_failure_rate: float = 0.0

    def error_for(self, tally: Tally) -> RunPermanentError | None:
        """Return the error that stops the run, if a limit is reached."""
        if not tally.failed:
            return None
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
    # The status and message without item-specific parts; equal for the same refusal of different items.
    kind: str


@dataclass
class _Health:
    """Calls with one purpose: what has failed since the last answer."""

    # Start time of the latest call that was answered.
    answered_from: float = -math.inf
    failing_since: float = math.nan
    failing: set[str] = field(default_factory=set)
    timed_out: set[str] = field(default_factory=set)
    unusable: set[str] = field(default_factory=set)
    refusals: list[_Refusal] = field(default_factory=list)
    in_progress: int = 0
    in_progress_failed: int = 0

    @property
    def has_answered(self) -> bool:
        return self.answered_from > -math.inf

    def record_reply(self) -> None:
        """Record that the server works, although the reply may hold no answer."""
        self.failing.clear()
        self.timed_out.clear()

    def record_answer(self, begun: float) -> None:
        self.record_reply()
        self.unusable.clear()
        self.answered_from = max(self.answered_from, begun)
        # An answer to an earlier call says nothing about the server at the time of a refusal.
        self.refusals = [one for one in self.refusals if one.at >= self.answered_from]


@dataclass(frozen=True)
class OutageLimits:
    """Limits of a run on consecutive failures. ``same_refusals`` is 0 if every refusal is blamed on its item."""

    give_up_after_sec: float = GIVE_UP_AFTER_SEC
    same_refusals: int = 0

    @classmethod
    def of(cls, give_up_after_sec: float, max_workers: int, *, stop_on_same_refusal: bool) -> OutageLimits:
        refusals = max(MIN_SAME_REFUSALS, REFUSALS_PER_WORKER * max_workers)
        return cls(give_up_after_sec, refusals if stop_on_same_refusal else 0)


class CallInProgress:
    """One call with its retries."""

    def __init__(self, outages: Outages, request: ChatRequest) -> None:
        self._limits, self._health = outages.limits, outages.health_of(request.purpose)
        self._item = request.subject.work_id if request.subject else ""
        self._purpose = request.purpose
        self._failed_at = math.nan

    @property
    def has_failed(self) -> bool:
        return not math.isnan(self._failed_at)

    @property
    def is_shared(self) -> bool:
        """Whether several items in a row have failed, so that the cause is probably not this item."""
        return len(self._health.failing) >= SEVERAL

    def record_answer(self, begun: float, completion: Completion) -> None:
        """Record that a call that started at ``begun`` was answered.

        Raises ``RunPermanentError`` if the first few items have all got nothing but unusable replies. An answer without
        text is one, unless there has been an answer with text.
        """
        if completion.text.strip() or self._health.has_answered:
            self._health.record_answer(begun)
            return
        self._health.record_reply()
        remark = f"; {completion.note}" if completion.note else ""
        last = f"no text, finish_reason: {completion.finish_reason}{remark}"
        self._check_unusable(last, completion.advice or UNUSABLE_ADVICE)

    def record_fault(self, error: TransientError) -> None:
        """Record a failed call. Raises ``RunPermanentError`` if no call has been answered for too long."""
        now, health = _now(), self._health
        if error.cause == FailureCause.NOT_JSON:
            # The model has answered.
            health.record_answer(now)
            return
        if not self.has_failed:
            self._failed_at = now
            health.in_progress_failed += 1
        if not health.failing:
            health.failing_since = now
        health.failing.add(self._item)
        if self.is_shared and not is_timeout(error):
            self._check_outage(error, now - health.failing_since)

    def _check_outage(self, error: TransientError, seconds: float) -> None:
        limit = self._limits.give_up_after_sec
        if error.cause == FailureCause.RATE_LIMITED or error.status in _BUSY_STATUSES:
            if seconds >= limit:
                raise RunPermanentError(
                    StopCause.GAVE_UP,
                    f"no call has been answered for {_duration(seconds)} (llm.give_up_after); the last reply was "
                    f"{error}. Run again when the provider accepts calls; no item was recorded as failed for this.",
                )
        elif seconds >= min(DOWN_SEC, limit) and self._health.in_progress_failed == self._health.in_progress:
            raise RunPermanentError(
                StopCause.SERVER_DOWN,
                f"no call has been answered for {_duration(seconds)}, and {counted(len(self._health.failing), 'item')} in "
                f"a row failed; the last failure was: {error}. Check the server, then run again; no item was recorded "
                "as failed for this.",
            )

    def record_last_fault(self, error: TransientError) -> None:
        """Record a failed last retry. Raises ``RunPermanentError`` if all recent calls have timed out."""
        error.suspected_outage = self._suspected_outage(self._failed_at)
        if not is_timeout(error):
            return
        self._health.timed_out.add(self._item)
        if len(self._health.timed_out) >= SEVERAL:
            raise RunPermanentError(
                StopCause.TOO_SLOW,
                f"{counted(len(self._health.timed_out), 'item')} in a row timed out, each of them repeatedly ({error}). "
                "The provider may bill these calls. Raise llm.timeout_sec, or lower llm.max_workers or "
                "llm.max_output_tokens, then run again.",
            )

    def record_unusable_reply(self, error: TransientError) -> None:
        """Record a reply that was billed but holds no answer. Raises ``RunPermanentError`` after several in a row."""
        self._check_unusable(str(error), UNUSABLE_ADVICE)

    def _check_unusable(self, last: str, advice: str) -> None:
        health = self._health
        health.unusable.add(self._item)
        n_items = len(health.unusable)
        if n_items >= (MAX_UNUSABLE_REPLIES if health.has_answered else SEVERAL):
            consequence = "" if health.has_answered else "; no item was recorded as failed for this"
            raise RunPermanentError(
                StopCause.UNUSABLE_REPLIES,
                f"{counted(n_items, 'item')} in a row got replies that are billed but hold no answer (the last one: {last}). "
                f"{advice}, then run again{consequence}.",
            )

    def record_refusal(self, error: ItemPermanentError) -> None:
        """Record that the provider refused the item. Raises ``RunPermanentError`` if it refuses all items alike."""
        now, health = _now(), self._health
        if error.cause != FailureCause.BAD_REQUEST:
            # A content filter or model read this item before refusing it, so the server works.
            health.record_answer(now)
            return
        if not self._limits.same_refusals:
            return
        error.suspected_outage = self._suspected_outage(now)
        health.refusals.append(_Refusal(self._item, now, str(error), _kind_of(error)))
        same = {one.item for one in health.refusals if one.kind == health.refusals[-1].kind}
        if len(same) >= self._limits.same_refusals:
            raise _same_refusal(len(same), str(error))
        refused = {one.item for one in health.refusals}
        if not health.has_answered and len(refused) >= max(HOPELESS_AFTER, self._limits.same_refusals):
            raise RunPermanentError(
                StopCause.HOPELESS,
                f"the first {len(refused)} items were all refused, the last one with: {error}. Correct the prompt or the "
                "settings, then run again; none of them was recorded as failed.",
            )

    def _suspected_outage(self, at: float) -> SuspectedOutage | None:
        return SuspectedOutage(self._purpose, at) if self._health.answered_from <= at else None


class Outages:
    """Watches the calls of one run for failures that hit several items in a row."""

    def __init__(self, limits: OutageLimits | None = None) -> None:
        self.limits = limits or OutageLimits()
        self._health_by_purpose: dict[str, _Health] = {}

    def health_of(self, purpose: str) -> _Health:
        return self._health_by_purpose.setdefault(purpose, _Health())

    @contextmanager
    def watching(self, request: ChatRequest) -> Iterator[CallInProgress]:
        """Watch a call and its retries."""
        call, health = CallInProgress(self, request), self.health_of(request.purpose)
        health.in_progress += 1
        try:
            yield call
        finally:
            health.in_progress -= 1
            health.in_progress_failed -= call.has_failed

    def is_refuted(self, suspected_outage: SuspectedOutage) -> bool:
        """Return whether the item itself caused the failure: a call that started later has been answered."""
        return self.health_of(suspected_outage.purpose).answered_from > suspected_outage.at

    def suspicion(self, purpose: str) -> SuspectedOutage | None:
        """Return the suspicion that falls on an unusable reply as long as no call has been answered."""
        return None if self.health_of(purpose).has_answered else SuspectedOutage(purpose, -math.inf)

    def error_at_end(self) -> RunPermanentError | None:
        """Return the error of a run whose last items were all refused alike but were too few for ``record_refusal``."""
        for health in self._health_by_purpose.values():
            for last in health.refusals:
                same = {one.item for one in health.refusals if one.kind == last.kind}
                if len(same) >= SEVERAL:
                    return _same_refusal(len(same), last.message)
        return None


def _now() -> float:
    return asyncio.get_running_loop().time()


def _kind_of(error: ProviderError) -> str:
    return f"{error.status} {_ITEM_SPECIFIC.sub('#', str(error))}"


def _same_refusal(count: int, message: str) -> RunPermanentError:
    return RunPermanentError(
        StopCause.SAME_REFUSAL,
        f"{counted(count, 'item')} in a row were refused with the same message ({message}), so probably every item would "
        "be. None of them was recorded as failed. Correct what the message names, then run again; if these rows are at "
        "fault, set llm.stop_on_same_refusal: false.",
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
