"""Schema modules written by the model: ask, check, and ask again with feedback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.schema.writing import python_of
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.engine.ports import ChatClient
from llmbatch_assets.engine.retry import RetryingCalls
from llmbatch_assets.errors import AnswerError, FailureCause, SchemaError, SchemaGenerationError


@dataclass(frozen=True)
class WrittenSchema:
    """The rendering of a module that passed, and the attempts it took."""

    source: str
    attempts: int
    usage: TokenUsage


@dataclass(frozen=True)
class SchemaWriter:
    """Asks for a module until one passes.

    ``vet`` returns the rendering of an answer's module or raises ``SchemaError``. ``on_refused`` is called with the
    number (from 1), the answer and the problem of each module that did not pass.
    """

    client: ChatClient
    vet: Callable[[str], str]
    on_refused: Callable[[int, Completion, str], None]
    generations: int
    calls: RetryingCalls

    async def write(self, opening: tuple[Message, ...]) -> WrittenSchema:
        """Return a module that passes. Raises ``SchemaGenerationError`` after the last attempt, or a ``ProviderError``."""
        turns: tuple[Message, ...] = ()
        usage, problem = TokenUsage(), ""
        for number in range(1, self.generations + 1):
            completion = await self.calls.ask(self.client, ChatRequest("schema", opening + turns, None))
            usage += completion.usage
            try:
                return WrittenSchema(self._vet(completion), number, usage)
            except (AnswerError, SchemaError) as refused:
                problem = str(refused)
            self.on_refused(number, completion, problem)
            turns += (
                Message("assistant", completion.text),
                Message("user", f"{problem}\n\nGive the whole corrected module as one Python code block."),
            )
        raise SchemaGenerationError(
            f"none of {self.generations} answers is a schema module; problem of the last one: {problem}"
        )

    def _vet(self, completion: Completion) -> str:
        if completion.finish_reason == "length":
            raise AnswerError(
                FailureCause.CUT_OFF, "The answer was cut off at the length limit. Write a shorter module."
            )
        return self.vet(python_of(completion.text))
