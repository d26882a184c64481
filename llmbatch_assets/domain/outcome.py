"""How the work on an item ended, in the shapes that are kept on disk."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmbatch_assets.domain.answer import Verdict
from llmbatch_assets.domain.cost import added
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem

FailureClass = Literal["answer", "transient", "item_permanent"]


class Stored(BaseModel):
    """A value that is kept on disk."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class TokenUsage(Stored):
    """Tokens, requests and cost of one or several calls.

    ``output_tokens`` include the ``reasoning_tokens``. ``cost_usd`` is None where the price of any of the calls is not
    known; what was not asked costs nothing.
    """

    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = Field(default_factory=lambda told: None if told["requests"] else 0.0)

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: TokenUsage) -> TokenUsage:
        counts = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        return TokenUsage(**counts, cost_usd=added(self.cost_usd, other.cost_usd))

    def costing(self, dollars: float | None) -> TokenUsage:
        """The same calls at a price."""
        return self.model_copy(update={"cost_usd": dollars})


_COUNTS = [name for name in TokenUsage.model_fields if name != "cost_usd"]


class Completion(Stored):
    """What a provider answered to one call."""

    text: str
    finish_reason: str = "stop"
    usage: TokenUsage = TokenUsage(requests=1)
    latency_sec: float = 0.0
    request_id: str = ""


class Source(Stored):
    """Where the outputs of a batch come from, as every artifact of it says."""

    identity: BatchIdentity
    provider: str
    generation_prompt_path: str
    judge_prompt_path: str | None

    def meta(self, item: WorkItem, attempt: int, now: str) -> dict[str, Any]:
        """The ``meta`` of an item's artifact."""
        return {
            "cache_id": self.identity.cache_id(item.work_id),
            "work_id": item.work_id,
            "partition_key": item.partition_key,
            "group_key": item.group_key,
            "row_index": item.row_index,
            "group_context_id": item.group_context_id,
            "model": self.identity.model_name,
            "temperature": self.identity.temperature,
            "provider": self.provider,
            "generation_prompt_path": self.generation_prompt_path,
            "judge_enabled": self.identity.judge_enabled,
            "judge_prompt_path": self.judge_prompt_path,
            "generation_id": self.identity.generation_id(item.work_id),
            "identity": self.identity.parts(item.work_id),
            "attempt_outer": attempt,
            "created_at_utc": now,
        }


class AcceptedOutput(Stored):
    """A validated and, where a judge is enabled, approved output: ``llm_outputs/{cache_id}.json``."""

    meta: dict[str, Any]
    parsed: dict[str, Any]
    judge: dict[str, Any] | None
    usage: TokenUsage
    latency_sec: float


class KeptAnswer(Stored):
    """A valid output that waits for its verdict: paid for, and not to be bought again.

    ``usage`` and ``latency_sec`` are those of the calls that made it.
    """

    cache_id: str
    attempt: int
    parsed: dict[str, Any]
    raw_text: str | None
    usage: TokenUsage
    latency_sec: float


class FailedAttempt(Stored):
    """An attempt that gave nothing to keep: ``llm_failures/{cache_id}__a{attempt}.json``.

    ``request_id`` is the provider's own name for the attempt's last call, which its support asks for.
    """

    meta: dict[str, Any]
    error: dict[str, str]
    failure_class: FailureClass = Field(alias="class")
    cause: str
    raw_text: str | None
    feedback: str | None
    judge: dict[str, Any] | None
    usage: TokenUsage
    latency_sec: float
    request_id: str = ""

    @property
    def item_permanent(self) -> bool:
        """Whether asking again is pointless until something is changed."""
        return self.failure_class == "item_permanent"


class Attempt(Stored):
    """What an attempt has gathered so far, whichever way it ends."""

    request_id: str = ""
    raw_text: str | None = None
    verdict: Verdict | None = None
    usage: TokenUsage = TokenUsage()
    latency_sec: float = 0.0

    def plus(self, completion: Completion) -> Attempt:
        """The attempt with the cost of one more call."""
        usage = self.usage + completion.usage
        latency = self.latency_sec + completion.latency_sec
        return self.model_copy(update={"usage": usage, "latency_sec": latency, "request_id": completion.request_id})
