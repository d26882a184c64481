"""All mistakes of a schema module at once: each is told, its statement taken out, and the rest read again."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from llmbatch_assets.domain.schema.grammar import parse_schema
from llmbatch_assets.errors import SchemaError

MAX_TOLD = 50


def schema_mistakes(source: str, path: str) -> list[str]:
    """One message for each statement that a schema cannot hold, up to 50.

    It ends at a mistake without which the rest cannot be judged: no Python, or a class that is none of ours.
    """
    found: list[str] = []
    while len(found) < MAX_TOLD:
        try:
            parse_schema(source, path)
            break
        except SchemaError as mistake:
            found.append(str(mistake))
        place = re.match(rf"{re.escape(path)}:(\d+): ", found[-1])
        rest = _without(source, int(place.group(1))) if place else None
        if rest is None:
            break
        source = rest
    return found


def _without(source: str, line: int) -> str | None:
    """The source without the statement on that line; None where that is more than one statement."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    statement = next(_on_line(body, line), None)
    if statement is None or isinstance(statement, ast.ClassDef):
        return None
    lines = source.splitlines(keepends=True)
    first, last = statement.lineno - 1, statement.end_lineno or statement.lineno
    # As many lines as before, so that places stay what they are; a class may be left without any other statement.
    nothing = f"{' ' * statement.col_offset}pass\n" if statement.col_offset else "\n"
    return "".join([*lines[:first], nothing, *["\n"] * (last - first - 1), *lines[last:]])


def _on_line(body: Sequence[ast.stmt], line: int) -> Iterator[ast.stmt]:
    """The statements that cover a line, those inside of a class first."""
    for statement in body:
        if statement.lineno <= line <= (statement.end_lineno or statement.lineno):
            if isinstance(statement, ast.ClassDef):
                yield from _on_line(statement.body, line)
            yield statement
