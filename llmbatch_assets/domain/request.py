"""Requests to a model about one item: the messages that ask for an output or for a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.items.prompt_columns import column_values
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.placeholders import GENERATION_NAMES, JUDGE_NAMES
from llmbatch_assets.domain.prompt import Message, PromptTemplate
from llmbatch_assets.domain.schema.contract import Contract

OWN_ROW_HEADING = "This item's own row:"

Purpose = Literal["generate", "judge", "schema"]


class Subject(NamedTuple):
    """The item and attempt that a call belongs to, as the ledger records them."""

    work_id: str
    cache_id: str
    partition_key: str
    attempt: int


@dataclass(frozen=True)
class ChatRequest:
    """One call: the conversation so far, and the contract of its answer if that must be JSON.

    ``timeout_factor`` multiplies the time limit of the call.
    """

    purpose: Purpose
    messages: tuple[Message, ...]
    contract: Contract | None
    subject: Subject | None = None
    timeout_factor: int = 1

    @cached_property
    def chars(self) -> int:
        """Total length of the messages in characters."""
        return sum(len(message.content) for message in self.messages)

    def with_schema_in_prompt(self) -> tuple[Message, ...]:
        """Return the messages including the JSON schema, for servers without structured output."""
        if self.contract is None or any(self.contract.text in message.content for message in self.messages):
            return self.messages
        rule = f"Answer with one JSON object that matches this JSON schema:\n{self.contract.text}"
        first = self.messages[0]
        if first.role == "system":
            return (Message("system", f"{first.content}\n\n{rule}"), *self.messages[1:])
        return (Message("system", rule), *self.messages)


@dataclass(frozen=True)
class Conversations:
    """The checked prompts of a batch together with the values that all its items share."""

    generation: PromptTemplate
    judge: PromptTemplate | None
    output_contract: Contract
    judge_contract: Contract | None
    schema_txt: str

    @cached_property
    def _shared_values(self) -> dict[str, str | None]:
        return {
            "llm_schema": self.output_contract.text,
            "llm_schema_txt": self.schema_txt,
            "judge_schema": self.judge_contract.text if self.judge_contract else None,
        }

    @cached_property
    def _generation_columns(self) -> list[str]:
        return self.generation.column_placeholders(GENERATION_NAMES)

    @cached_property
    def _judge_columns(self) -> list[str]:
        return self.judge.column_placeholders(JUDGE_NAMES) if self.judge else []

    def generate(self, item: WorkItem, group_context: str | None) -> tuple[Message, ...]:
        """Return the messages that ask for an item's output."""
        columns = column_values(self._generation_columns, item.columns)
        return self.generation.render(columns | self._shared_values | item_values(item, group_context))

    def judge_output(self, item: WorkItem, group_context: str | None, parsed: dict[str, Any]) -> tuple[Message, ...]:
        """Return the messages that ask for a verdict on an output."""
        assert self.judge is not None
        columns = column_values(self._judge_columns, item.columns)
        values = self._shared_values | item_values(item, group_context) | {"output_json": readable_json(parsed)}
        return self.judge.render(columns | values)


def completed_judge_prompt(judge: PromptTemplate) -> PromptTemplate:
    """Append the input and the output to a judge prompt that shows neither. Placeholders of columns show the input."""
    headings = {"context": "The input:", "output_json": "The answer to judge:"}
    if judge.column_placeholders(JUDGE_NAMES):
        del headings["context"]
    return judge.with_appended(headings)


def item_values(item: WorkItem, group_context: str | None) -> dict[str, str | None]:
    """Return the placeholder values of an item. The shared group context comes first, for the server's prefix cache."""
    own = item.context if item.group_context_id is None else f"{group_context}\n\n{OWN_ROW_HEADING}\n{item.context}"
    return {"context": own, "row": item.context, "group_context": group_context}
