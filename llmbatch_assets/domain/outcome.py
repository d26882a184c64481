"""Outcomes of work items: completions, accepted outputs and failed attempts, as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.usage import TokenUsage

FailureClass = Literal["answer", "transient", "item_permanent"]


class Stored(BaseModel):
    """A frozen model of something stored on disk."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Completion(Stored):
    """A provider's answer to one call.

    ``note`` says what is unusual about it, for messages about an unusable text. ``advice`` says what to change if no answer
    has text.
    """

    text: str
    finish_reason: str = "stop"
    note: str = ""
    advice: str = ""
    usage: TokenUsage = TokenUsage(requests=1)
    latency_sec: float = 0.0
    request_id: str = ""

    @property
    def remark(self) -> str:
        """An explanation for messages about an unusable text: the note, or an unusual finish reason."""
        return self.note or ("" if self.finish_reason in ("stop", "length") else f"finish_reason: {self.finish_reason}")


class Source(Stored):
    """The origin of a batch's outputs, as recorded in each of its artifacts."""

    identity: BatchIdentity
    provider: str
    generation_prompt_path: str
    judge_prompt_path: str | None

    def meta(self, item: WorkItem, attempt: int, now: str) -> dict[str, Any]:
        """Return the ``meta`` of an item's artifact."""
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
    """A validated and, if a judge is enabled, approved output: ``llm_outputs/{cache_id}.json``."""

    meta: dict[str, Any]
    parsed: dict[str, Any]
    judge: dict[str, Any] | None
    usage: TokenUsage
    latency_sec: float

    @property
    def judge_score(self) -> float | None:
        """The judge's score; None without a judge or a number."""
        score = self.judge.get("score") if self.judge else None
        return float(score) if isinstance(score, int | float) else None


class UnjudgedAnswer(Stored):
    """A valid output without a verdict yet. It is stored so that a later run does not pay for it again.

    ``usage`` and ``latency_sec`` cover the calls that produced it.
    """

    cache_id: str
    attempt: int
    parsed: dict[str, Any]
    raw_text: str | None
    usage: TokenUsage
    latency_sec: float


class FailedAttempt(Stored):
    """An attempt without an accepted output: ``llm_failures/{cache_id}__a{attempt}.json``.

    ``cause`` is a ``FailureCause``, or a cause that another version wrote. ``request_id`` is the provider's id of the
    attempt's last call, for support requests.
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
        """True if a retry is pointless until something changes."""
        return self.failure_class == "item_permanent"


class FailedTry(NamedTuple):
    """A failed attempt of a run: the ``tried``-th of up to ``n_tries``. ``is_last``: the item has failed with it."""

    item: WorkItem
    failure: FailedAttempt
    tried: int
    n_tries: int
    is_last: bool


class SuspectedOutage(NamedTuple):
    """Marks a failure that the item may not have caused.

    No call for this purpose that started after ``at``, a time of the run's event loop, has been answered yet.
    """

    purpose: str
    at: float


@dataclass(frozen=True)
class ItemResult:
    """The result of one item: exactly one of ``accepted`` and ``failed`` is set.

    ``usage`` counts the calls of this run. ``found`` is true if another run produced the accepted output. A failure with
    a ``suspected_outage`` has not been saved. ``is_deferred`` is true if such an item has attempts left.
    """

    item: WorkItem
    attempts: int
    usage: TokenUsage
    accepted: AcceptedOutput | None = None
    failed: FailedAttempt | None = None
    found: bool = False
    suspected_outage: SuspectedOutage | None = None
    is_deferred: bool = False
