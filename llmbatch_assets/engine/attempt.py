"""One item: generate, validate, judge; and again with what was wrong, until it is accepted or given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmbatch_assets.domain.answer import Verdict, feedback, read_object, read_verdict
from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import (
    AcceptedOutput,
    Attempt,
    Completion,
    FailedAttempt,
    FailureClass,
    KeptAnswer,
    Source,
    TokenUsage,
)
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest, Conversations, Subject
from llmbatch_assets.engine.calls import Calls
from llmbatch_assets.engine.ports import ChatClient, Clock, OutputStore
from llmbatch_assets.errors import (
    AnswerError,
    ItemPermanentError,
    ProviderError,
    TransientError,
)


@dataclass(frozen=True)
class Limits:
    """How often things are tried."""

    generations: int
    judge_tries: int
    min_score: int


@dataclass(frozen=True)
class Job:
    """One item to work on, with what its group shares.

    ``settled`` looks whether another run has made the item's output in the meantime; ``earlier`` for an output that was
    accepted under another judge.
    """

    item: WorkItem
    group_context: str | None
    cache_id: str
    settled: Callable[[], AcceptedOutput | None] = lambda: None
    earlier: Callable[[], AcceptedOutput | None] = lambda: None


@dataclass(frozen=True)
class ItemResult:
    """How one item ended: exactly one of ``accepted`` and ``failed`` is set. ``usage`` counts the calls of this run.

    ``found`` says that the accepted output is another run's.
    """

    item: WorkItem
    attempts: int
    usage: TokenUsage
    accepted: AcceptedOutput | None = None
    failed: FailedAttempt | None = None
    found: bool = False


class RejectedError(AnswerError):
    """A valid output that the judge does not let pass."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__("judge_rejected", feedback(verdict))


@dataclass(frozen=True)
class Workbench:
    """Everything that work on an item needs; the same for all items of a run."""

    generator: ChatClient
    judge: ChatClient | None
    store: OutputStore
    conversations: Conversations
    source: Source
    limits: Limits
    now: Clock
    calls: Calls

    async def work_on(self, job: Job) -> ItemResult:
        """Try until the item is accepted or its generations are used up. Raises ``RunPermanentError``."""
        settled = job.settled()
        if settled is not None:
            return ItemResult(job.item, 0, TokenUsage(), accepted=settled, found=True)
        first = self.store.next_attempt(job.cache_id)
        kept = self._kept(job)
        opening = self.conversations.generate(job.item, job.group_context)
        # What the model is to go on from stays last, after any corrections.
        prefix = opening[-1:] if opening[-1].role == "assistant" else ()
        opening = opening[: len(opening) - len(prefix)]
        turns: tuple[Message, ...] = ()
        spent = TokenUsage()
        # Judging what was generated before is no generation.
        tries = self.limits.generations + (kept is not None)
        for tried in range(1, tries + 1):
            attempt = _Attempt(self, job, opening + turns + prefix, first + tried - 1, kept)
            kept = None
            result = await attempt.run()
            spent += attempt.so_far.usage
            if isinstance(result, AcceptedOutput):
                return ItemResult(job.item, tried, spent, accepted=result)
            if tried == tries or not attempt.worth_repeating(result):
                return ItemResult(job.item, tried, spent, failed=result)
            turns += attempt.correction(result)
        raise AssertionError("there is at least one generation")

    def _kept(self, job: Job) -> KeptAnswer | None:
        """An answer that only lacks a verdict: of a run that was cut short, or judged by another judge."""
        awaiting = self.store.awaiting(job.cache_id)
        earlier = job.earlier() if awaiting is None else None
        if earlier is None:
            return awaiting
        return KeptAnswer(
            cache_id=job.cache_id,
            attempt=1,
            parsed=earlier.parsed,
            raw_text=readable_json(earlier.parsed),
            usage=earlier.usage,
            latency_sec=earlier.latency_sec,
        )


class _Attempt:
    """One generation and what became of it."""

    def __init__(
        self, bench: Workbench, job: Job, messages: tuple[Message, ...], number: int, kept: KeptAnswer | None
    ) -> None:
        self.bench = bench
        self.kept = kept
        self.job = job
        self.messages = messages
        self.number = number
        self.so_far = Attempt()
        self.judging = False

    async def run(self) -> AcceptedOutput | FailedAttempt:
        """The saved outcome. Raises ``RunPermanentError``: that is no failure of this item, and leaves no file."""
        try:
            output = await self._generate()
        except (AnswerError, TransientError, ItemPermanentError) as fault:
            self._charge(fault)
            failure = self._failure(fault)
            await self.bench.store.save_failure(failure)
            return failure
        await self.bench.store.save_accepted(output)
        return output

    def _charge(self, fault: AnswerError | ProviderError) -> None:
        """Count what the call that ended the attempt has cost."""
        if not isinstance(fault, ProviderError):
            return
        spent = fault.usage if isinstance(fault.usage, TokenUsage) else TokenUsage()
        told = {"usage": self.so_far.usage + spent, "request_id": fault.request_id or self.so_far.request_id}
        self.so_far = self.so_far.model_copy(update=told)

    async def _generate(self) -> AcceptedOutput:
        parsed = await self._answered() if self.kept is None else self._take_up(self.kept)
        self.judging = self.bench.judge is not None
        if self.judging and self.kept is None:
            await self.bench.store.save_awaiting(self._to_keep(parsed))
        verdict = await self._judge(parsed) if self.judging else None
        if verdict is not None and not verdict.accepted:
            raise RejectedError(verdict)
        return AcceptedOutput(
            meta=self._meta(),
            parsed=parsed,
            judge=verdict.answer if verdict else None,
            usage=self._usage(),
            latency_sec=self._latency(),
        )

    async def _answered(self) -> dict[str, Any]:
        contract = self.bench.conversations.output_contract
        request = ChatRequest("generate", self.messages, contract, self._subject())
        completion = await self.bench.calls.ask(self.bench.generator, request)
        text = _with_prefix(self.messages, completion.text)
        self.so_far = self.so_far.plus(completion).model_copy(update={"raw_text": text})
        return contract.validate(read_object(_whole(completion.model_copy(update={"text": text}))))

    def _take_up(self, kept: KeptAnswer) -> dict[str, Any]:
        self.so_far = self.so_far.model_copy(update={"raw_text": kept.raw_text})
        # In the order of the schema, in which the judge is shown an answer that has just come.
        return self.bench.conversations.output_contract.validate(kept.parsed)

    def _to_keep(self, parsed: dict[str, Any]) -> KeptAnswer:
        return KeptAnswer(
            cache_id=self.job.cache_id,
            attempt=self.number,
            parsed=parsed,
            raw_text=self.so_far.raw_text,
            usage=self.so_far.usage,
            latency_sec=self.so_far.latency_sec,
        )

    def _usage(self) -> TokenUsage:
        """What this attempt's output has cost in all, an earlier run's share included."""
        return self.so_far.usage + self.kept.usage if self.kept else self.so_far.usage

    def _latency(self) -> float:
        return self.so_far.latency_sec + self.kept.latency_sec if self.kept else self.so_far.latency_sec

    async def _judge(self, parsed: dict[str, Any]) -> Verdict:
        conversations = self.bench.conversations
        contract = conversations.judge_contract
        assert contract is not None
        messages = conversations.judge_output(self.job.item, self.job.group_context, parsed)
        for remaining in reversed(range(self.bench.limits.judge_tries)):
            said = ""
            try:
                completion = await self._asked_judge(ChatRequest("judge", messages, contract, self._subject()))
                said = completion.text
                answer = contract.validate(read_object(_whole(completion)))
                break
            except AnswerError as unreadable:
                if not remaining:
                    raise TransientError("judge_unreadable", f"the judge gave no verdict: {unreadable}") from unreadable
                # Servers refuse a turn that says nothing.
                messages += _turns(said, str(unreadable)) if said.strip() else ()
        verdict = read_verdict(answer, self.bench.limits.min_score)
        self.so_far = self.so_far.model_copy(update={"verdict": verdict})
        return verdict

    async def _asked_judge(self, request: ChatRequest) -> Completion:
        """What the judge says. One that declines may not do so again, so that is an answer that cannot be used."""
        assert self.bench.judge is not None
        try:
            completion = await self.bench.calls.ask(self.bench.judge, request)
        except ItemPermanentError as refusal:
            if refusal.cause != "refused":
                raise
            self._charge(refusal)
            raise AnswerError("judge_unreadable", str(refusal)) from refusal
        self.so_far = self.so_far.plus(completion)
        return completion

    def worth_repeating(self, failure: FailedAttempt) -> bool:
        """Whether another generation can help: not where the judge, or the item itself, is what failed."""
        return failure.failure_class == "answer" or (failure.failure_class == "transient" and not self.judging)

    def correction(self, failure: FailedAttempt) -> tuple[Message, ...]:
        """The two turns that show the model its answer and what was wrong with it."""
        answer, wrong = failure.raw_text, failure.feedback
        return _turns(answer, wrong) if answer and answer.strip() and wrong else ()

    def _subject(self) -> Subject:
        return Subject(self.job.item.work_id, self.job.cache_id, self.job.item.partition_key, self.number)

    def _meta(self) -> dict[str, object]:
        return self.bench.source.meta(self.job.item, self.number, self.bench.now())

    def _failure(self, fault: AnswerError | ProviderError) -> FailedAttempt:
        verdict = self.so_far.verdict
        return FailedAttempt.model_validate(
            {
                "meta": self._meta(),
                "error": {"type": type(fault).__name__, "message": str(fault)},
                "class": failure_class(fault),
                "cause": fault.cause,
                "raw_text": self.so_far.raw_text,
                "feedback": str(fault) if isinstance(fault, AnswerError) else None,
                "judge": verdict.answer if verdict else None,
                "usage": self._usage(),
                "latency_sec": self._latency(),
                "request_id": self.so_far.request_id,
            }
        )


def failure_class(fault: AnswerError | ProviderError) -> FailureClass:
    """Who has to do something about a fault: the model, the item's author, or time."""
    if isinstance(fault, AnswerError):
        return "answer"
    return "item_permanent" if isinstance(fault, ItemPermanentError) else "transient"


def _whole(completion: Completion) -> str:
    if completion.finish_reason == "length":
        raise AnswerError("cut_off", "The answer was cut off at the length limit. Give a shorter one.")
    return completion.text


def _with_prefix(messages: tuple[Message, ...], answer: str) -> str:
    """The whole answer: some servers repeat the prefix that they were given, others only go on from it."""
    prefix = messages[-1].content if messages[-1].role == "assistant" else ""
    return answer if answer.startswith(prefix) else prefix + answer


def _turns(answer: str, problem: str) -> tuple[Message, ...]:
    return (
        Message("assistant", answer),
        Message("user", f"{problem}\n\nGive the corrected answer as one JSON object and nothing else."),
    )
