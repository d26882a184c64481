"""Print results: a table as wide as the terminal, or blocks of lines where there is no terminal or no room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmbatch_assets.domain.run.results import ResultRow
from llmbatch_assets.domain.text import cut

# Without a terminal, inputs are cut after this many characters. Outputs are printed in full.
INPUT_CHARS = 200
# Columns are not shortened below this width. If the output's fields and an input do not fit, there is no table.
NARROWEST = 12
GAP = 2

# A header and one cell per row.
_Column = list[str]


def print_results(rows: Sequence[ResultRow], console: Console, *, shorten: bool) -> None:
    """Print the results of a run. ``shorten`` cuts each line to the width of the console."""
    if not shorten:
        for line in _blocks(rows, INPUT_CHARS):
            console.print(line)
        return
    accepted = [row for row in rows if not row.failure]
    columns = _columns(accepted, console.width)
    if columns:
        console.print(_table(columns, console.width))
    # A failed item has no fields; its line gets the whole width.
    for line in _blocks([row for row in rows if row.failure] if columns else rows, limit=0):
        console.print(_shortened(line, console.width))


def _blocks(rows: Sequence[ResultRow], limit: int) -> Iterator[str]:
    for row in rows:
        yield f"item {row.name} failed: {row.failure}" if row.failure else f"item {row.name}"
        if not row.failure:
            yield from (f"  {name}: {cut(text, limit)[0]}" for name, text in row.inputs.items())
            yield from (f"  {name}: {text}" for name, text in row.outputs.items())


def _shortened(line: str, width: int) -> Text:
    text = Text(line, no_wrap=True)
    text.truncate(width, overflow="ellipsis")
    return text


def _columns(rows: Sequence[ResultRow], width: int) -> list[_Column]:
    """The items, their output's fields, and the inputs that fit between them; nothing if the fields and an input do not."""
    items = ["item", *(row.name for row in rows)]
    inputs = _by_name([row.inputs for row in rows])
    outputs = _by_name([row.outputs for row in rows])
    while len(inputs) > 1 and not _fit([items, *inputs, *outputs], width):
        inputs.pop()
    columns = [items, *inputs, *outputs]
    return columns if rows and _fit(columns, width) else []


def _by_name(texts: Sequence[dict[str, str]]) -> list[_Column]:
    names = dict.fromkeys(name for one in texts for name in one)
    return [[name, *(one.get(name, "") for one in texts)] for name in names]


def _needed(column: _Column) -> int:
    return max(map(cell_len, column))


def _fit(columns: Sequence[_Column], width: int) -> bool:
    return sum(min(_needed(column), NARROWEST) + GAP for column in columns) - GAP <= width


def _table(columns: Sequence[_Column], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    widths = _shares([_needed(column) for column in columns], width - GAP * (len(columns) - 1))
    for (header, *_), column_width in zip(columns, widths, strict=True):
        table.add_column(Text(header), width=column_width, no_wrap=True, overflow="ellipsis")
    for cells in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _shares(needed: Sequence[int], space: int) -> list[int]:
    """Share the space: no column gets more than it needs, and the wide ones get equal parts of what is left."""
    shares = [0] * len(needed)
    narrow_first = sorted(range(len(needed)), key=needed.__getitem__)
    for n_served, index in enumerate(narrow_first):
        shares[index] = min(needed[index], space // (len(needed) - n_served))
        space -= shares[index]
    return shares
