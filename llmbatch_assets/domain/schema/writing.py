"""Ask a model for a schema module, and find the module in its answer."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from llmbatch_assets.domain.answer import without_thoughts
from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.domain.placeholders import SCHEMA_NAMES
from llmbatch_assets.domain.prompt import Message, PromptTemplate
from llmbatch_assets.domain.schema.spec import MODULES
from llmbatch_assets.domain.text import harden
from llmbatch_assets.errors import AnswerError, FailureCause

CONTEXT_HEADING = "The prompt whose answers the schema describes; words in braces are filled in for each item:"
MAX_ANSWER_CHARS = 200_000
NO_TASK = "(nothing was written down)"
# A fenced block. The closing fence may be at the end of the last line of code, or missing.
_BLOCK = re.compile(
    r'^[ \t]*(```+|~~~+)[ \t]*(?!(?:[\w.+-]+[ \t]+)?(?:(?:from|import|class)\b|"""))([\w.+-]*)[^\n]*\n(.*?)(?:\1[ \t]*$|\Z)',
    re.DOTALL | re.MULTILINE,
)
# Fences in the middle of a line, or with code on the line of the opening fence.
_INLINE = re.compile(r"(```+|~~~+)[ \t]*(?:(?:python3?|py|pydantic)\b)?[ \t]*(.*?)(?:\1|\Z)", re.DOTALL | re.IGNORECASE)
_FENCE_LINE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
# A prose line after unfenced code: it is not indented and assigns nothing.
_PROSE = re.compile(r"(?:[A-Z*-][^=]*)?")
_FIRST_LINE = re.compile(rf'^(?:from (?:__future__|{"|".join(MODULES)}) |import |class \w+\(|""")', re.MULTILINE)
_PYTHON = {"python", "py", "python3", "pydantic"}


def schema_conversation(prompt: PromptTemplate, generation: PromptTemplate, task: str) -> tuple[Message, ...]:
    """Return the messages that ask for a module. Raises ``PromptError`` for an unknown placeholder."""
    prompt.check(SCHEMA_NAMES)
    return prompt.render({"context": f"{CONTEXT_HEADING}\n\n{generation.as_text()}", "task": task.strip() or NO_TASK})


def generated_from(prompt: PromptTemplate, generation: PromptTemplate, task: str, llm: Llm) -> str:
    """Return a fingerprint of everything that a generated module depends on."""
    return sha1_named(
        schema_prompt=prompt.sha, generation_prompt=generation.sha, task=task.strip(), model=llm.model_name
    )


def python_of(answer: str) -> str:
    """Return the module in a model's answer.

    This is the first block fenced as Python that contains a class, else any fenced block with a class, else the text
    from the first line of code. The closing fence may be missing. Raises ``AnswerError`` if there is no class.
    """
    if len(answer) > MAX_ANSWER_CHARS:
        message = f"The answer is longer than {MAX_ANSWER_CHARS} characters. Write a shorter module."
        raise AnswerError(FailureCause.NO_CODE, message)
    text = without_thoughts(re.sub(r"\r\n?", "\n", harden(answer)))
    if text.lstrip().startswith("<think>"):
        raise AnswerError(
            FailureCause.NO_CODE, "The answer ends inside its thinking block. Answer with one Python code block."
        )
    for code in map(textwrap.dedent, _found(text)):
        if re.search(r"^class \w", code, re.MULTILINE):
            return code.strip("\n") + "\n"
    raise AnswerError(FailureCause.NO_CODE, "The answer contains no Python module with a class.")


def _found(text: str) -> Iterator[str]:
    blocks = [(found.group(2).lower(), found.group(3)) for found in _BLOCK.finditer(text)]
    yield from (code for language, code in blocks if language in _PYTHON)
    yield from (code for language, code in blocks if language not in _PYTHON)
    yield from (found.group(2) for found in _INLINE.finditer(text))
    first = _FIRST_LINE.search(text)
    if first:
        lines = _FENCE_LINE.split(text[first.start() :], maxsplit=1)[0].split("\n")
        while lines and _PROSE.fullmatch(lines[-1]):
            lines.pop()
        yield "\n".join(lines)
