"""Text clean-up: look-alike spaces, invisible characters, truncation, slugs and near matches."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Sequence

# Non-breaking spaces, and zero-width characters that editors leave behind. The joiners U+200C and U+200D stay: Persian,
# Indic scripts and emoji need them.
_LOOKALIKES = {0x00A0: " ", 0x202F: " ", 0xFEFF: None, 0x200B: None, 0x2060: None}
_LINE_BREAKS = re.compile(r"[\r\n\t\v\f\x85\u2028\u2029]+")
_ASCII_WORDS = re.compile(r"[a-z0-9]+")
_SURROGATES = re.compile("[\ud800-\udfff]")
# Characters that control a terminal or hide or reorder its text: controls except line feed and tab, direction marks, line
# separators, lone surrogates, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# Characters that no file of text cells should hold: controls except line break and tab, direction overrides and isolates,
# lone surrogates. Direction marks and tags stay, because Arabic and Hebrew text and flag emoji need them.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)")
CUT_MARK = " …[cut]"
_NAME_CHARS = 200


def harden(text: str) -> str:
    """Replace non-breaking spaces and remove byte order marks and zero-width spaces."""
    return text.translate(_LOOKALIKES)


def composed(text: str) -> str:
    """Return the text in Unicode's composed form (NFC), in which equal-looking texts are equal."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def has_surrogates(text: str) -> bool:
    """Return whether the text has a lone surrogate, which UTF-8 cannot encode."""
    return not text.isascii() and _SURROGATES.search(text) is not None


def visible(text: str) -> str:
    """Escape the characters that a terminal would act on or hide."""
    return _UNSEEN.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def visible_json(text: str) -> str:
    """Escape the same characters in JSON text without changing its value."""
    return _UNSEEN.sub(lambda found: json.dumps(found.group())[1:-1], text)


JSON_ESCAPE = "\\u{:04x}"
BRACED_ESCAPE = "\\x{{{:x}}}"


def has_controls(text: str) -> bool:
    """Return whether ``escape_controls`` would change the text."""
    return not text.isprintable() and _CONTROLS.search(text) is not None


def escape_controls(text: str, form: str = JSON_ESCAPE) -> str:
    """Escape controls, direction overrides and lone surrogates, so that a terminal can show the text.

    In JSON text, ``JSON_ESCAPE`` keeps the value.
    """
    # Most texts have none, and this test is much faster than the search.
    if text.isprintable():
        return text
    return _CONTROLS.sub(lambda found: form.format(ord(found.group())), text)


def without_surrogates(text: str) -> str:
    r"""Write lone surrogates as escapes (``\ud83d``), so that UTF-8 can encode the text."""
    return text.encode("utf-8", "backslashreplace").decode() if has_surrogates(text) else text


def flatten(text: str) -> str:
    """Put the text on one line: line breaks and tabs, and the spaces around them, become one space."""
    first, *others = _LINE_BREAKS.split(text)
    if not others:
        return text
    *middle, last = others
    return " ".join([first.rstrip(), *filter(None, map(str.strip, middle)), last.lstrip()])


def cut(text: str, limit: int) -> tuple[str, bool]:
    """Cut the text to ``limit`` characters plus a visible mark, and return whether it was cut. 0 means no limit."""
    if limit <= 0 or len(text) <= limit:
        return text, False
    return text[:limit].rstrip() + CUT_MARK, True


def utf16_length(text: str) -> int:
    """Return the length in UTF-16 units, as Excel counts it."""
    return len(text) + sum(character > "\uffff" for character in text)


def slug(text: str, limit: int = 32) -> str:
    """Return the lower-case letters (of any script) and digits of the text, joined by hyphens."""
    if text.isascii():
        words = _ASCII_WORDS.findall(text.lower())
    else:
        plain = unicodedata.normalize("NFKC", text).lower()
        # Marks (category M) belong to letters in Hindi and Thai.
        words = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in plain).split()
    return "-".join(words)[:limit].strip("-")


def counted(number: int, what: str) -> str:
    """Return a number with its noun: ``1 item``, ``2 items``."""
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
    """Return the known names similar to ``name``, ignoring case, most similar first."""
    wanted = name.casefold()
    alike = {one: _likeness(wanted, one.casefold(), least) for one in known}
    return sorted((one for one in known if alike[one] >= least), key=lambda one: -alike[one])


def _likeness(one: str, other: str, least: float) -> float:
    """Return the similarity of two names; 0 if it is less than ``least``. Only the beginnings of long names are compared."""
    matcher = difflib.SequenceMatcher(None, one[:_NAME_CHARS], other[:_NAME_CHARS])
    # The first two are upper bounds, and much faster.
    if matcher.real_quick_ratio() < least or matcher.quick_ratio() < least:
        return 0.0
    return matcher.ratio()


def case_mark(name: str, known: str) -> str:
    """Return a note for a known name that differs from ``name`` only in case, else an empty text."""
    return " (case matters)" if name != known and name.casefold() == known.casefold() else ""
