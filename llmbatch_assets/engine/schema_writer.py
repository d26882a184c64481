"""Have the model write a schema module: ask, check, and ask again with the problem as feedback."""

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
    """The rendering of an accepted module, and the attempts and tokens it took."""

    source: str
    attempts: int
    usage: TokenUsage


@dataclass(frozen=True)
class SchemaWriter:
    """Asks for a module until one is accepted.

    ``check`` returns the rendering of a module or raises ``SchemaError``. ``on_refused`` is called for each rejected
    answer, with its number (from 1), the completion and the problem.
    """

    client: ChatClient
    check: Callable[[str], str]
    on_refused: Callable[[int, Completion, str], None]
    generations: int
    calls: RetryingCalls

    async def write(self, opening: tuple[Message, ...]) -> WrittenSchema:
        """Return an accepted module. Raises ``SchemaGenerationError`` after the last attempt, or a ``ProviderError``."""
        turns: tuple[Message, ...] = ()
        usage, problem = TokenUsage(), ""
        for number in range(1, self.generations + 1):
            completion = await self.calls.ask(self.client, ChatRequest("schema", opening + turns, None))
            usage += completion.usage
            try:
                return WrittenSchema(self._checked(completion), number, usage)
            except (AnswerError, SchemaError) as refused:
                problem = str(refused)
            self.on_refused(number, completion, problem)
            turns += (
                Message("assistant", completion.text),
                Message("user", f"{problem}\n\nGive the whole corrected module as one Python code block."),
            )
        raise SchemaGenerationError(
            f"none of {self.generations} answers is a valid schema module; the last problem: {problem}"
        )

    def _checked(self, completion: Completion) -> str:
        if completion.finish_reason == "length":
            raise AnswerError(
                FailureCause.CUT_OFF, "The answer was cut off at the length limit. Write a shorter module."
            )
        return self.check(python_of(completion.text))
