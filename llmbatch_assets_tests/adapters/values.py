"""Values that tests of adapters and resources hand over."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt, Source
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.domain.usage import TokenUsage

NOW = "2026-01-15T12:00:00.000+00:00"
IDENTITY = BatchIdentity(
    prompt_sha="p", schema_sha="s", model_name="m-1", temperature=0.5, settings={}, judge_enabled=False
)
SOURCE = Source(
    identity=IDENTITY, provider="openai", generation_prompt_path="prompts/generation.yaml", judge_prompt_path=None
)


class LLMOutput(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid")
    answer: str
    certain: bool


def chat_request(text: str = "row 1", model: type[BaseModel] = LLMOutput) -> ChatRequest:
    """A call that asks for an output."""
    return ChatRequest("generate", (Message("system", "Be brief."), Message("user", text)), Contract.of(model))


def work_item(number: int = 0, context: str = "", group_key: str | None = None, **meta: Any) -> WorkItem:
    """The item of one row."""
    return WorkItem(
        work_id=f"{number:040x}",
        partition_key=f"item-{number}",
        group_key=group_key,
        row_index=number,
        group_context_id=None,
        context=context or f"row {number}",
        meta=meta,
    )


def cache_id(number: int = 0) -> str:
    """The cache id of ``work_item(number)``."""
    return IDENTITY.cache_id(work_item(number).work_id)


def accepted(
    number: int = 0, parsed: dict[str, Any] | None = None, judge: dict[str, Any] | None = None
) -> AcceptedOutput:
    """An accepted output of ``work_item(number)``."""
    return AcceptedOutput(
        meta=SOURCE.meta(work_item(number), 1, NOW),
        parsed=parsed or {"answer": "yes", "certain": True},
        judge=judge,
        usage=TokenUsage(requests=1, input_tokens=10, output_tokens=4),
        latency_sec=0.25,
    )


def failed(number: int = 0, attempt: int = 1, failure_class: str = "answer", message: str = "no") -> FailedAttempt:
    """A failed attempt at ``work_item(number)``."""
    return FailedAttempt.model_validate(
        {
            "meta": SOURCE.meta(work_item(number), attempt, NOW),
            "error": {"type": "AnswerError", "message": message},
            "class": failure_class,
            "cause": "schema_mismatch",
            "raw_text": "{}",
            "feedback": message,
            "judge": None,
            "usage": TokenUsage(requests=1),
            "latency_sec": 0.5,
        }
    )
