"""A provider, a store and a clock that live in memory, and the small batch that they are put to work on."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from llmbatch_assets.domain.outcome import AcceptedOutput, Completion, FailedAttempt, UnjudgedAnswer
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.request import ChatRequest, Conversations, completed_judge_prompt
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.engine.attempt import AttemptLimits, ItemProcessor, ItemTask
from llmbatch_assets.engine.ports import ChatClient
from llmbatch_assets.engine.retry import RetryingCalls
from llmbatch_assets.engine.stops import Outages
from llmbatch_assets_tests.domain.strategies import make_item, make_source

NOW = "2026-02-16T00:00:00Z"
GOOD = '{"answer": "yes"}'
APPROVAL = '{"reasons": ["fine"], "score": 90, "verdict": "PASS"}'
REJECTION = '{"reasons": ["too short", "wrong"], "score": 20, "verdict": "FAIL"}'
COST = TokenUsage(requests=1, input_tokens=7, output_tokens=2)

Returned = TypeVar("Returned")


class LLMOutput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    answer: str


class JudgeResult(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reasons: list[str]
    score: int
    verdict: Literal["PASS", "FAIL"]


class ScriptedClient:
    """Answers from a list, the last one for ever; an exception in it is raised. ``asked`` is what it was asked."""

    def __init__(self, *script: str | Completion | Exception) -> None:
        self.script = list(script)
        self.asked: list[ChatRequest] = []

    async def complete(self, request: ChatRequest) -> Completion:
        self.asked.append(request)
        await asyncio.sleep(0)
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Completion) else Completion(text=said, usage=COST, latency_sec=0.5)

    def conversation(self, call: int) -> list[tuple[str, str]]:
        """Roles and contents of a call's messages."""
        return [(message.role, message.content) for message in self.asked[call].messages]


class MemoryStore:
    """Outcomes by cache id. ``log`` is the order in which they were saved."""

    def __init__(self) -> None:
        self.accepted: dict[str, AcceptedOutput] = {}
        self.failures: list[FailedAttempt] = []
        self.waiting: dict[str, UnjudgedAnswer] = {}
        self.log: list[str] = []

    async def save_accepted(self, output: AcceptedOutput) -> None:
        self.accepted[output.meta["cache_id"]] = output
        self.waiting.pop(output.meta["cache_id"], None)
        self.log.append("accepted")

    async def save_failure(self, failure: FailedAttempt) -> None:
        self.failures.append(failure)
        if failure.failure_class == "answer":
            self.waiting.pop(failure.meta["cache_id"], None)
        self.log.append(failure.cause)

    async def save_awaiting(self, answer: UnjudgedAnswer) -> None:
        self.waiting[answer.cache_id] = answer

    def awaiting(self, cache_id: str) -> UnjudgedAnswer | None:
        return self.waiting.get(cache_id)

    def next_attempt(self, cache_id: str) -> int:
        return 1 + len([failure for failure in self.failures if failure.meta["cache_id"] == cache_id])


class PassingTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next thing that is due, so that nobody waits."""

    def __init__(self) -> None:
        super().__init__(_JumpingSelector())

    def time(self) -> float:
        return _JumpingSelector.now


class _JumpingSelector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        _JumpingSelector.now += timeout or 0.0
        return super().select(0 if timeout is not None else None)


def run(work: Callable[[], Awaitable[Returned]]) -> Returned:
    """The result of asynchronous work, on a loop on which no time is lost."""

    async def main() -> Returned:
        return await work()

    with asyncio.Runner(loop_factory=PassingTime) as runner:
        return runner.run(main())


def job(number: int = 1, group_context: str | None = None, **changes: Any) -> ItemTask:
    """A job on one item of a batch without a judge."""
    item = make_item(number, **changes)
    return ItemTask(item, group_context, make_source(judge_enabled=False).identity.cache_id(item.work_id))


class AllClaims:
    """Claims of the only run there is, but for those items that another run is ``held`` to have."""

    def __init__(self, *held: str) -> None:
        self.held = set(held)
        self.ours: set[str] = set()

    def claim(self, cache_id: str) -> bool:
        if cache_id in self.held:
            return False
        self.ours.add(cache_id)
        return True

    def release(self, cache_id: str) -> None:
        self.ours.remove(cache_id)


def bench(
    generator: ChatClient,
    judge: ChatClient | None = None,
    store: MemoryStore | None = None,
    stopped: asyncio.Event | None = None,
    transport_retries: int = 1,
    outages: Outages | None = None,
    **limits: int,
) -> ItemProcessor:
    """A workbench of a batch with or without a judge."""
    chosen: Mapping[str, int] = {"generations": 3, "judge_tries": 2, "min_score": 0} | limits
    asking = PromptTemplate(path="g.yaml", system="Answer.", user="{context}")
    judging = completed_judge_prompt(PromptTemplate(path="j.yaml", user="Judge {context}: {output_json}"))
    contracts = (Contract.of(LLMOutput), Contract.of(JudgeResult) if judge else None)
    return ItemProcessor(
        generator=generator,
        judge=judge,
        store=MemoryStore() if store is None else store,
        conversations=Conversations(asking, judging if judge else None, *contracts, "schema"),
        source=make_source(judge_enabled=judge is not None),
        limits=AttemptLimits(**chosen),
        now=lambda: NOW,
        calls=RetryingCalls(transport_retries, stopped or asyncio.Event(), outages or Outages()),
    )


def answer(text: str) -> str:
    """A good answer that says this."""
    return json.dumps({"answer": text})
