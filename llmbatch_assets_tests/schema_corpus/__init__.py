"""Schema modules as language models and people write them, and as nobody should: one text file each.

The first line of a file says what the case is and is no part of the module; the module begins on the second. What would
be too long, or is no text, is abbreviated: ``⟦[ × 10000⟧`` is ten thousand brackets, in which ``⏎`` is a line break and
``№`` the number of the repetition, and ``⟦bytes 00 ff⟧`` are two bytes.

``hostile``     ``# effect; line; words``: must be refused, naming the line (``-``: there is none, or any; several: one of
                them) and the construct (a regular expression of words that say so). The effect is what the module does
                if it is run: ``marks`` (it makes the file that the environment names), ``bomb`` (it takes time or memory
                without end), ``import`` (it imports what is none of a schema's business), ``no payload`` and why.
``legitimate``  ``# remark``: must be accepted, and mean what it says.
``awkward``     ``# outcome; remark``: must be ``accepted``, ``refused``, or ``either``, and never crash.
"""  # noqa: RUF002  # the abbreviation's own sign

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

MARKER = "SCHEMA_MARKER"
_FOLDER = Path(__file__).parent
_ABBREVIATION = re.compile(r"⟦(?:bytes (?P<bytes>[0-9a-f ]+)|(?P<text>[^⟧]*?) × (?P<times>\d+))⟧", re.DOTALL)


class Header(NamedTuple):
    """The first line of a file, taken apart at its semicolons."""

    first: str
    second: str = ""
    third: str = ""


class Module:
    """One case. The text is read when it is first needed: some are long."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        line, _, self._abbreviated = path.read_bytes().decode("utf-8").partition("\n")
        self.header = Header(*(part.strip() for part in line.removeprefix("#").split(";", 2)))

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def source(self) -> bytes:
        """The module as a file holds it."""
        parts, end = [], 0
        for found in _ABBREVIATION.finditer(self._abbreviated):
            parts += [self._abbreviated[end : found.start()].encode(), _spelt_out(found)]
            end = found.end()
        return b"".join([*parts, self._abbreviated[end:].encode()])

    def put(self, path: Path) -> Path:
        """Write the module there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.source)
        return path


def _spelt_out(found: re.Match[str]) -> bytes:
    if found["bytes"]:
        return bytes.fromhex(found["bytes"])
    text = found["text"].replace("⏎", "\n")
    return "".join(text.replace("№", str(number)) for number in range(int(found["times"]))).encode()


def _modules(kind: str) -> list[Module]:
    return [Module(path) for path in sorted((_FOLDER / kind).glob("*.txt"))]


HOSTILE = _modules("hostile")
LEGITIMATE = _modules("legitimate")
AWKWARD = _modules("awkward")
