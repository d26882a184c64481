"""Prompt templates: files with named placeholders, rendered in one pass into chat messages."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.domain.placeholders import unknown_placeholders
from llmbatch_assets.errors import PromptError

# A name is a word, or the name of a column in double quotes.
_TOKEN = re.compile(r'\{\{|\}\}|\{(\w+|"(?:[^"\\\n]|\\["\\])+")\}')


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Example(BaseModel):
    """A few-shot pair: a user message and the desired answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str
    assistant: str


class PromptTemplate(BaseModel):
    """A parsed prompt file. Only its messages identify it; name, version and purpose are for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(exclude=True)
    name: str = ""
    version: str | int | float = ""
    purpose: str = ""
    system: str | None = None
    user: str = Field(min_length=1)
    assistant_prefix: str | None = None
    examples: tuple[Example, ...] = ()

    def texts(self) -> list[tuple[Literal["system", "user", "assistant"], str]]:
        """Return the messages as they are written, with their roles."""
        pairs = [turn for shown in self.examples for turn in (("user", shown.user), ("assistant", shown.assistant))]
        turns = [("system", self.system), *pairs, ("user", self.user), ("assistant", self.assistant_prefix)]
        return [(role, text) for role, text in turns if text]  # type: ignore[misc]  # roles are literals above

    @property
    def sha(self) -> str:
        """Fingerprint of the messages. Comments and YAML indentation do not change it."""
        return sha1_named(messages=self.texts())

    @property
    def placeholders(self) -> frozenset[str]:
        return frozenset(name for _, text in self.texts() for name in placeholders_in(text))

    def column_placeholders(self, built_in: Collection[str]) -> list[str]:
        """Return the placeholders that stand for columns: all but the built-in ones."""
        return sorted(self.placeholders.difference(built_in))

    def as_text(self) -> str:
        """Return all messages with their roles and placeholders, for display in another prompt."""
        return "\n\n".join(f"[{role}]\n{text.strip()}" for role, text in self.texts())

    def check(self, known: Iterable[str]) -> None:
        """Raise ``PromptError`` naming all unknown placeholders."""
        unknown = sorted(self.placeholders - set(known))
        if unknown:
            raise PromptError(f"{self.path}: {unknown_placeholders(unknown, known)}")

    def with_appended(self, headings: Mapping[str, str]) -> PromptTemplate:
        """Return the template with the unused ones of these placeholders appended to the user message."""
        absent = [f"\n\n{heading}\n{{{name}}}" for name, heading in headings.items() if name not in self.placeholders]
        return self.model_copy(update={"user": self.user.rstrip() + "".join(absent)}) if absent else self

    def render(self, values: Mapping[str, str | None]) -> tuple[Message, ...]:
        """Fill all placeholders. Raises ``PromptError`` naming those without a value."""
        try:
            return tuple([Message(role, fill_placeholders(text, values)) for role, text in self.texts()])
        except KeyError:
            # Checking before each rendering would take longer than rendering.
            self.check(values)
            raise


def placeholders_in(text: str) -> list[str]:
    """Return the names of the placeholders in a text, in order."""
    return [piece for piece, is_placeholder in _pieces(text) if is_placeholder]


def fill_placeholders(text: str, values: Mapping[str, str | None]) -> str:
    """Fill the placeholders in one pass: braces in inserted text are never read as placeholders. None inserts nothing."""
    return "".join([(values[piece] or "") if is_placeholder else piece for piece, is_placeholder in _pieces(text)])


# All items of a batch use the same few templates.
@lru_cache(maxsize=64)
def _pieces(text: str) -> tuple[tuple[str, bool], ...]:
    """Split a text into literal parts and placeholder names; the flag is true for a name."""
    pieces: list[tuple[str, bool]] = []
    end = 0
    for found in live_tokens(text):
        name = found.group(1)
        pieces += [(text[end : found.start()], False), (name or found.group()[0], name is not None)]
        end = found.end()
    return (*pieces, (text[end:], False))


def live_tokens(text: str) -> list[re.Match[str]]:
    """Return placeholders and doubled braces that come in pairs. A lone ``}}`` ends a nested JSON example."""
    live: list[re.Match[str]] = []
    opened: list[re.Match[str]] = []
    for found in _TOKEN.finditer(text):
        if found.group() == "{{":
            opened.append(found)
        elif found.group() != "}}":
            live.append(found)
        elif opened:
            live += [opened.pop(), found]
    return sorted(live, key=re.Match.start)
