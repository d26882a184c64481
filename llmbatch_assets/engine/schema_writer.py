"""Having a schema module written: ask, vet, and ask again with what was wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmbatch_assets.domain.outcome import Completion, TokenUsage
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.schema.writing import python_of
from llmbatch_assets.engine.calls import Calls
from llmbatch_assets.engine.ports import ChatClient
from llmbatch_assets.errors import AnswerError, SchemaError, SchemaGenerationError


@dataclass(frozen=True)
class WrittenSchema:
    """A module that passed: its rendering, and what it took."""

    source: str
    attempts: int
    usage: TokenUsage


@dataclass(frozen=True)
class SchemaWriter:
    """Asks for a module until one passes.

    ``vet`` gives the rendering of an answer's module or raises ``SchemaError``; ``on_refused`` is told of each answer
    that did not pass, by its number from 1.
    """

    client: ChatClient
    vet: Callable[[str], str]
    on_refused: Callable[[int, Completion, str], None]
    generations: int
    calls: Calls

    async def write(self, opening: tuple[Message, ...]) -> WrittenSchema:
        """A module that passes. Raises ``SchemaGenerationError`` after the last generation, or a ``ProviderError``."""
        turns: tuple[Message, ...] = ()
        usage, problem = TokenUsage(), ""
        for number in range(1, self.generations + 1):
            completion = await self.calls.ask(self.client, ChatRequest("schema", opening + turns, None))
            usage += completion.usage
            try:
                return WrittenSchema(self._passed(completion), number, usage)
            except (AnswerError, SchemaError) as refused:
                problem = str(refused)
            self.on_refused(number, completion, problem)
            turns += (
                Message("assistant", completion.text),
                Message("user", f"{problem}\n\nGive the whole corrected module as one Python code block."),
            )
        raise SchemaGenerationError(f"none of {self.generations} answers is a schema module; the last one: {problem}")

    def _passed(self, completion: Completion) -> str:
        if completion.finish_reason == "length":
            raise AnswerError("cut_off", "The answer was cut off at the length limit. Write a shorter module.")
        return self.vet(python_of(completion.text))
