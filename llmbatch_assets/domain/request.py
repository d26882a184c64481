"""What is asked of a model about one item: the conversation of a generation and of a judgement."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.prompt import GENERATION_NAMES, JUDGE_NAMES, Message, PromptTemplate
from llmbatch_assets.domain.schema.contract import Contract

OWN_ROW_HEADING = "This item's own row:"

Purpose = Literal["generate", "judge", "schema"]


class Subject(NamedTuple):
    """What a call is about, as the ledger names it."""

    work_id: str
    cache_id: str
    partition_key: str
    attempt: int


@dataclass(frozen=True)
class ChatRequest:
    """One call: the conversation so far, and the contract that its answer is to keep, if it is to be JSON."""

    purpose: Purpose
    messages: tuple[Message, ...]
    contract: Contract | None
    subject: Subject | None = None

    @cached_property
    def chars(self) -> int:
        """The length of everything that is said."""
        return sum(len(message.content) for message in self.messages)

    def with_schema_in_prompt(self) -> tuple[Message, ...]:
        """The messages with the contract's JSON schema in them, for servers that cannot be handed one."""
        if self.contract is None or any(self.contract.text in message.content for message in self.messages):
            return self.messages
        rule = f"Answer with one JSON object that matches this JSON schema:\n{self.contract.text}"
        first = self.messages[0]
        if first.role == "system":
            return (Message("system", f"{first.content}\n\n{rule}"), *self.messages[1:])
        return (Message("system", rule), *self.messages)


@dataclass(frozen=True)
class Conversations:
    """The prompts of a batch with everything filled in that all its items share."""

    generation: PromptTemplate
    judge: PromptTemplate | None
    output_contract: Contract
    judge_contract: Contract | None
    schema_txt: str

    @classmethod
    def of(
        cls,
        generation: PromptTemplate,
        judge: PromptTemplate | None,
        output_contract: Contract,
        judge_contract: Contract | None,
        schema_txt: str,
    ) -> Conversations:
        """Conversations whose prompts have no blank that nothing fills. Raises ``PromptError``."""
        return cls(generation, checked_prompts(generation, judge), output_contract, judge_contract, schema_txt)

    @cached_property
    def _shared_values(self) -> dict[str, str | None]:
        return {
            "llm_schema": self.output_contract.text,
            "llm_schema_txt": self.schema_txt,
            "judge_schema": self.judge_contract.text if self.judge_contract else None,
        }

    def generate(self, item: WorkItem, group_context: str | None) -> tuple[Message, ...]:
        """The messages that ask for an item's output."""
        return self.generation.render(self._shared_values | item_values(item, group_context))

    def judge_output(self, item: WorkItem, group_context: str | None, parsed: dict[str, Any]) -> tuple[Message, ...]:
        """The messages that ask what an output is worth."""
        assert self.judge is not None
        values = self._shared_values | item_values(item, group_context) | {"output_json": readable_json(parsed)}
        return self.judge.render(values)


def checked_prompts(generation: PromptTemplate, judge: PromptTemplate | None) -> PromptTemplate | None:
    """The judge's prompt with what it must show. Raises ``PromptError`` for a blank of either that nothing fills."""
    generation.check(GENERATION_NAMES)
    if judge is not None:
        judge = judge.with_appended({"context": "The input:", "output_json": "The answer to judge:"})
        judge.check(JUDGE_NAMES)
    return judge


def prompt_warnings(generation: PromptTemplate) -> list[str]:
    """What a generation prompt leaves out that its items differ in."""
    used = generation.placeholders
    if not used & {"context", "row", "group_context"}:
        return [f"{generation.path} shows nothing of an item: neither {{context}} nor {{row}} is in it"]
    if not used & {"context", "row"}:
        return [f"{generation.path} shows the group and not the row: neither {{context}} nor {{row}} is in it"]
    return []


def item_values(item: WorkItem, group_context: str | None) -> dict[str, str | None]:
    """The blanks that an item fills. What its group shares comes first: servers cache common beginnings."""
    own = item.context if item.group_context_id is None else f"{group_context}\n\n{OWN_ROW_HEADING}\n{item.context}"
    return {"context": own, "row": item.context, "group_context": group_context}
