"""Texts as people and spreadsheets leave them, made plain."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Sequence

# Spaces that look like a space and are not, and marks without width that editors leave behind. The joiners U+200C and
# U+200D stay: Persian, Indic scripts and emoji are written with them.
_LOOKALIKES = {0x00A0: " ", 0x202F: " ", 0xFEFF: None, 0x200B: None, 0x2060: None}
_LINE_BREAKS = re.compile(r"[\r\n\t\v\f\x85\u2028\u2029]+")
_ASCII_WORDS = re.compile(r"[a-z0-9]+")
_SURROGATES = re.compile("[\ud800-\udfff]")
# What makes a terminal do something, or hides or reorders what stands there: controls but for line breaks and tabs,
# marks of direction, line separators, halves of surrogate pairs, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
CUT_MARK = " …[cut]"


def harden(text: str) -> str:
    """The text with no-break spaces as spaces and without byte order marks and zero-width spaces."""
    return text.translate(_LOOKALIKES)


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC): what looks alike is alike."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def has_surrogates(text: str) -> bool:
    """Whether the text holds half of a surrogate pair, which no file can keep as UTF-8."""
    return not text.isascii() and _SURROGATES.search(text) is not None


def visible(text: str) -> str:
    """The text as a terminal may show it: what it would act on or hide is written as an escape sequence."""
    return _UNSEEN.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def visible_json(text: str) -> str:
    """JSON as a terminal may show it: the same value, with JSON's own escapes for what would do harm there."""
    return _UNSEEN.sub(lambda found: json.dumps(found.group())[1:-1], text)


def without_surrogates(text: str) -> str:
    r"""The text with halves of surrogate pairs written out, ``\ud83d``, so that every file can hold it."""
    return text.encode("utf-8", "backslashreplace").decode() if has_surrogates(text) else text


def flatten(text: str) -> str:
    """The text on one line: line breaks and tabs, with the blanks around them, become one space."""
    first, *others = _LINE_BREAKS.split(text)
    if not others:
        return text
    *middle, last = others
    return " ".join([first.rstrip(), *filter(None, map(str.strip, middle)), last.lstrip()])


def cut(text: str, limit: int) -> tuple[str, bool]:
    """At most ``limit`` characters of the text and a visible mark where it was cut; 0 means no limit."""
    if limit <= 0 or len(text) <= limit:
        return text, False
    return text[:limit].rstrip() + CUT_MARK, True


def slug(text: str, limit: int = 32) -> str:
    """Letters (of any script) and digits of the text in lower case, joined by hyphens; empty where it has none."""
    if text.isascii():
        words = _ASCII_WORDS.findall(text.lower())
    else:
        plain = unicodedata.normalize("NFKC", text).lower()
        # Marks belong to letters: without them Hindi and Thai words fall apart.
        words = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in plain).split()
    return "-".join(words)[:limit].strip("-")


def counted(number: int, what: str) -> str:
    """So many of something: ``1 item``, ``2 items``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def format_bytes(size: float) -> str:
    """Format a size in units of 1,000 bytes: ``512 bytes``, ``1.5 kB``, ``87 kB``."""
    unit = "bytes"
    for larger in ("kB", "MB", "GB"):
        if size < 1_000:
            break
        size, unit = size / 1_000, larger
    return f"{size:.1f} {unit}" if unit != "bytes" and size < 10 else f"{size:.0f} {unit}"


def nearest(name: str, known: Sequence[str], least: float = 0.6) -> list[str]:
    """The known names that are like ``name``, the likest first; case makes them no less alike."""
    wanted = name.casefold()
    alike = {one: difflib.SequenceMatcher(None, wanted, one.casefold()).ratio() for one in known}
    return sorted((one for one in known if alike[one] >= least), key=lambda one: -alike[one])


def case_mark(name: str, known: str) -> str:
    """What is said beside a known name that differs from ``name`` in case alone."""
    return " (case matters)" if name != known and name.casefold() == known.casefold() else ""
