"""How long requests are, without putting them together: a prompt's own text, and what each item puts into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from llmbatch_assets.domain.prompt import PromptTemplate, placeholders_in
from llmbatch_assets.domain.request import OWN_ROW_HEADING

# Blanks that are filled differently for different items.
_OWN = ("context", "row", "group_context", "output_json")
_AROUND_ROW = len(f"\n\n{OWN_ROW_HEADING}\n")


def length(text: str) -> int:
    """Bytes of a text as UTF-8: tokens follow them more closely than characters, whatever the script."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Ruler:
    """Measures the requests of one prompt. ``shared`` is what all of them say, ``opening`` how much of it comes first."""

    shared: int
    opening: int
    opens_with_group: bool
    uses: Mapping[str, int]

    @classmethod
    def of(cls, prompt: PromptTemplate, values: Mapping[str, str | None]) -> Ruler:
        """The ruler of a prompt whose shared blanks have these values."""
        empty = {**values, **dict.fromkeys(_OWN)}
        shared = sum(length(message.content) for message in prompt.render(empty))
        opening, first = _opening(prompt, empty)
        uses = Counter(name for name in placeholders_in(prompt.as_text()) if name in _OWN)
        return cls(shared, opening, first in ("context", "group_context"), uses)

    def measure(self, row: int, group: int | None) -> int:
        """The length of the request about an item whose row and whose group's context have these lengths."""
        context = row if group is None else row + group + _AROUND_ROW
        own = {"context": context, "row": row, "group_context": group or 0}
        return self.shared + sum(self.uses.get(name, 0) * size for name, size in own.items())


def _opening(prompt: PromptTemplate, empty: Mapping[str, str | None]) -> tuple[int, str]:
    """The length of what comes before the first blank of an item's own, and that blank."""
    before = 0
    for message in prompt.render({**empty, **{name: f"\0{name}\0" for name in _OWN}}):
        text, mark, rest = message.content.partition("\0")
        before += length(text)
        if mark:
            return before, rest.partition("\0")[0]
    return before, ""
