"""Work on one item: generate, validate, judge, and retry with feedback until it is accepted or attempts run out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llmbatch_assets.domain.answer import MAX_ANSWER_CHARS, Verdict, feedback, read_object, read_verdict
from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import (
    AcceptedOutput,
    Completion,
    FailedAttempt,
    FailedTry,
    FailureClass,
    ItemResult,
    Source,
    SuspectedOutage,
    UnjudgedAnswer,
)
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest, Conversations, Subject
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.engine.ports import ChatClient, Clock, OutputStore
from llmbatch_assets.engine.retry import RetryingCalls, is_free
from llmbatch_assets.errors import AnswerError, FailureCause, ItemPermanentError, ProviderError, TransientError

# Longer answers are read in a thread, so that other calls can go on.
MAX_CHARS_AT_ONCE = 100_000
CUT_OFF_FEEDBACK = "The answer hit the length limit. Give a shorter one."


@dataclass(frozen=True)
class AttemptLimits:
    """Limits per item. ``judge_tries`` are the calls to get one readable verdict."""

    generations: int
    judge_tries: int
    min_score: int


@dataclass(frozen=True)
class ItemTask:
    """One item to process.

    ``find_existing`` returns the item's output if another run has produced it in the meantime.
    ``find_differently_judged`` returns an output that was accepted by another judge and only needs a new verdict.
    ``deferred`` is the result of the item's attempt so far, which the item itself has turned out to cause.
    """

    item: WorkItem
    group_context: str | None
    cache_id: str
    find_existing: Callable[[], AcceptedOutput | None] = lambda: None
    find_differently_judged: Callable[[], AcceptedOutput | None] = lambda: None
    deferred: ItemResult | None = None


class RejectedError(AnswerError):
    """The judge rejected a valid output."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(FailureCause.JUDGE_REJECTED, feedback(verdict))


@dataclass(frozen=True)
class ItemProcessor:
    """Processes items, one at a time per call. The same for all items of a run."""

    generator: ChatClient
    judge: ChatClient | None
    store: OutputStore
    conversations: Conversations
    source: Source
    limits: AttemptLimits
    now: Clock
    calls: RetryingCalls
    on_failed_try: Callable[[FailedTry], None] = lambda _: None

    async def process(self, task: ItemTask) -> ItemResult:
        """Try until the item is accepted, its generations are used up or it is deferred. Raises ``RunPermanentError``."""
        existing, spent = task.find_existing(), task.deferred.usage if task.deferred else TokenUsage()
        if existing is not None:
            return ItemResult(task.item, 0, spent, accepted=existing, found=True)
        first = self.store.next_attempt(task.cache_id)
        unjudged = self._unjudged_answer(task)
        opening = self.conversations.generate(task.item, task.group_context)
        # Keep the assistant prefix last; the model continues from it.
        prefix = opening[-1:] if opening[-1].role == "assistant" else ()
        opening = opening[: len(opening) - len(prefix)]
        # Judging an earlier answer does not count as a generation.
        n_tries = self.limits.generations + (unjudged is not None)
        turns = await self._record_deferred(task, n_tries)
        n_tried = task.deferred.attempts if task.deferred else 0
        for tried in range(n_tried + 1, n_tries + 1):
            attempt = _Attempt(self, task, opening + turns + prefix, first + tried - 1, unjudged)
            unjudged = None
            result = await attempt.complete()
            spent += attempt.usage
            if isinstance(result, AcceptedOutput):
                return ItemResult(task.item, tried, spent, accepted=result)
            suspected, is_last = attempt.suspected_outage, tried == n_tries or not attempt.is_answered
            if suspected is None:
                self.on_failed_try(FailedTry(task.item, result, tried, n_tries, is_last))
            if is_last or suspected is not None:
                return ItemResult(
                    task.item, tried, spent, failed=result, suspected_outage=suspected, is_deferred=not is_last
                )
            turns += _feedback_turns(result.raw_text, result.feedback)
        raise AssertionError("there is at least one generation")

    async def _record_deferred(self, task: ItemTask, n_tries: int) -> tuple[Message, ...]:
        """Record the attempt of a deferred item. Returns the turns that show it to the model."""
        if task.deferred is None or task.deferred.failed is None:
            return ()
        failure = task.deferred.failed
        await self.store.save_failure(failure)
        self.on_failed_try(FailedTry(task.item, failure, task.deferred.attempts, n_tries, False))
        return _feedback_turns(failure.raw_text, failure.feedback)

    def _unjudged_answer(self, task: ItemTask) -> UnjudgedAnswer | None:
        """Return an answer that only needs a verdict: from an interrupted run, or accepted by another judge."""
        awaiting = self.store.awaiting(task.cache_id)
        earlier = task.find_differently_judged() if awaiting is None else None
        if earlier is None:
            return awaiting
        return UnjudgedAnswer(
            cache_id=task.cache_id,
            attempt=1,
            parsed=earlier.parsed,
            raw_text=readable_json(earlier.parsed),
            usage=earlier.usage,
            latency_sec=earlier.latency_sec,
        )


@dataclass
class _Attempt:
    """One generation and its verdict. ``usage`` counts the attempt's calls in this run.

    ``is_answered`` is true if the attempt failed because of the answer, so that another generation can help. Calls
    without an answer have their own retries.
    """

    processor: ItemProcessor
    task: ItemTask
    messages: tuple[Message, ...]
    number: int
    unjudged: UnjudgedAnswer | None
    judging: bool = False
    request_id: str = ""
    raw_text: str | None = None
    verdict: Verdict | None = None
    is_answered: bool = False
    suspected_outage: SuspectedOutage | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)
    latency_sec: float = 0.0

    def __post_init__(self) -> None:
        if self.unjudged:
            self.raw_text, self.latency_sec = self.unjudged.raw_text, self.unjudged.latency_sec

    async def complete(self) -> AcceptedOutput | FailedAttempt:
        """Return the outcome, saved unless there is a ``suspected_outage``.

        A ``RunPermanentError`` is raised on: it is not a failure of this item.
        """
        try:
            output = await self._generate_and_judge()
        except (AnswerError, TransientError, ItemPermanentError) as error:
            self.is_answered = isinstance(error, AnswerError)
            if isinstance(error, ProviderError):
                self._charge(error)
                self.is_answered = isinstance(error, TransientError) and not self.judging and not is_free(error)
            self.suspected_outage = self._suspicion(error)
            failure = self._failure(error)
            if self.suspected_outage is None:
                await self.processor.store.save_failure(failure)
            return failure
        await self.processor.store.save_accepted(output)
        return output

    def _suspicion(self, error: AnswerError | ProviderError) -> SuspectedOutage | None:
        known = error.suspected_outage if isinstance(error, ProviderError) else None
        if isinstance(known, SuspectedOutage):
            return known
        # The provider decided about this item; or all others have been called, and no call was answered.
        if isinstance(error, ItemPermanentError) or self.task.deferred:
            return None
        return self.processor.calls.outages.suspicion("judge" if self.judging else "generate")

    async def _generate_and_judge(self) -> AcceptedOutput:
        contract = self.processor.conversations.output_contract
        # Validation also puts the fields of an earlier answer into the order of the schema, as the judge sees new ones.
        parsed = contract.validate(self.unjudged.parsed) if self.unjudged else await self._generate()
        self.judging = self.processor.judge is not None
        if self.judging and self.unjudged is None:
            await self.processor.store.save_awaiting(self._to_judge(parsed))
        verdict = await self._judge(parsed) if self.judging else None
        if verdict is not None and not verdict.accepted:
            raise RejectedError(verdict)
        return AcceptedOutput(
            meta=self._meta(),
            parsed=parsed,
            judge=verdict.answer if verdict else None,
            usage=self._total_usage(),
            latency_sec=self.latency_sec,
        )

    async def _generate(self) -> dict[str, Any]:
        contract = self.processor.conversations.output_contract
        request = ChatRequest("generate", self.messages, contract, self._subject())
        completion = await self.processor.calls.ask(self.processor.generator, request)
        self._count(completion)
        self.raw_text = _with_prefix(self.messages, completion.text)
        return await _validated(self.raw_text, completion, contract)

    async def _judge(self, parsed: dict[str, Any]) -> Verdict:
        conversations = self.processor.conversations
        contract = conversations.judge_contract
        assert contract is not None
        messages = conversations.judge_output(self.task.item, self.task.group_context, parsed)
        for remaining in reversed(range(self.processor.limits.judge_tries)):
            text = ""
            try:
                completion = await self._ask_judge(ChatRequest("judge", messages, contract, self._subject()))
                text = completion.text
                answer = await _validated(text, completion, contract)
                break
            except AnswerError as error:
                if not remaining:
                    raise TransientError(
                        FailureCause.JUDGE_UNREADABLE, f"the judge gave no verdict: {error}"
                    ) from error
                messages += _feedback_turns(text, str(error))
        self.verdict = read_verdict(answer, self.processor.limits.min_score)
        return self.verdict

    async def _ask_judge(self, request: ChatRequest) -> Completion:
        """Ask the judge. Refusals and billed replies without an answer count as unusable answers: the next may be usable."""
        assert self.processor.judge is not None
        try:
            completion = await self.processor.calls.ask(self.processor.judge, request)
        except ItemPermanentError as refusal:
            if refusal.cause != FailureCause.REFUSED:
                raise
            self._charge(refusal)
            raise AnswerError(FailureCause.JUDGE_UNREADABLE, str(refusal)) from refusal
        except TransientError as broken:
            if is_free(broken):
                raise
            self._charge(broken)
            raise AnswerError(FailureCause.JUDGE_UNREADABLE, str(broken)) from broken
        self._count(completion)
        return completion

    def _count(self, completion: Completion) -> None:
        self.usage += completion.usage
        self.latency_sec += completion.latency_sec
        self.request_id = completion.request_id

    def _charge(self, error: ProviderError) -> None:
        """Count the usage of a call that gave no answer."""
        if isinstance(error.usage, TokenUsage):
            self.usage += error.usage
        self.request_id = error.request_id or self.request_id

    def _total_usage(self) -> TokenUsage:
        """The usage of this attempt's output, including calls of an earlier run."""
        return self.usage + self.unjudged.usage if self.unjudged else self.usage

    def _subject(self) -> Subject:
        return Subject(self.task.item.work_id, self.task.cache_id, self.task.item.partition_key, self.number)

    def _meta(self) -> dict[str, object]:
        return self.processor.source.meta(self.task.item, self.number, self.processor.now())

    def _to_judge(self, parsed: dict[str, Any]) -> UnjudgedAnswer:
        return UnjudgedAnswer(
            cache_id=self.task.cache_id,
            attempt=self.number,
            parsed=parsed,
            raw_text=self.raw_text,
            usage=self.usage,
            latency_sec=self.latency_sec,
        )

    def _failure(self, error: AnswerError | ProviderError) -> FailedAttempt:
        return FailedAttempt.model_validate(
            {
                "meta": self._meta(),
                "error": {"type": type(error).__name__, "message": str(error), **_detail(error)},
                "class": failure_class(error),
                "cause": error.cause,
                "raw_text": self.raw_text,
                "feedback": str(error) if isinstance(error, AnswerError) else None,
                "judge": self.verdict.answer if self.verdict else None,
                "usage": self._total_usage(),
                "latency_sec": self.latency_sec,
                "request_id": self.request_id,
            }
        )


def _detail(error: AnswerError | ProviderError) -> dict[str, str]:
    return {"detail": error.detail} if isinstance(error, AnswerError) and error.detail else {}


def failure_class(error: AnswerError | ProviderError) -> FailureClass:
    """Return who can resolve the failure: the model (answer), the item's author (item_permanent), or time (transient)."""
    if isinstance(error, AnswerError):
        return "answer"
    return "item_permanent" if isinstance(error, ItemPermanentError) else "transient"


async def _validated(text: str, completion: Completion, contract: Contract) -> dict[str, Any]:
    if completion.finish_reason == "length":
        remark = f" ({completion.note})" if completion.note else ""
        raise AnswerError(FailureCause.CUT_OFF, f"{CUT_OFF_FEEDBACK}{remark}")
    try:
        if len(text) > MAX_CHARS_AT_ONCE:
            return await asyncio.to_thread(lambda: contract.validate(read_object(text)))
        return contract.validate(read_object(text))
    except AnswerError as unusable:
        if not completion.remark:
            raise
        raise AnswerError(unusable.cause, f"{unusable} ({completion.remark})", unusable.detail) from unusable


def _with_prefix(messages: tuple[Message, ...], answer: str) -> str:
    """Return the whole answer. Some servers repeat the prefix that the answer starts with, others only continue it."""
    prefix = messages[-1].content if messages[-1].role == "assistant" else ""
    return answer if answer.startswith(prefix) else prefix + answer


def _feedback_turns(answer: str | None, problem: str | None) -> tuple[Message, ...]:
    """Return the two turns that show the model its answer and what is wrong with it, if both are known."""
    # Servers reject an empty turn, and models one that is too long.
    if not (answer and answer.strip() and problem) or len(answer) > MAX_ANSWER_CHARS:
        return ()
    return (
        Message("assistant", answer),
        Message("user", f"{problem}\n\nGive the corrected answer as one JSON object and nothing else."),
    )
