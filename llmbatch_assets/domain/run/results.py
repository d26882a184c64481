"""The first results of a run, as texts for the terminal: inputs and parsed fields of each item, or why it failed."""

from __future__ import annotations

import json
import re
from bisect import insort
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import FailedAttempt, ItemResult
from llmbatch_assets.domain.run.attempt_lines import without_keys
from llmbatch_assets.domain.text import composed, flatten, visible

# Labels that a shell passes on as they are, and that are short enough for a table.
_PLAIN_LABEL = re.compile(r"\w[\w.-]{0,31}")


class FirstResults:
    """Keeps the results of the first ``limit`` items in table order, so that memory does not grow with the run."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[ItemResult] = []
        self._n_added = 0

    def add(self, result: ItemResult) -> None:
        """Keep the result if it is among the first."""
        self._n_added += 1
        insort(self._kept, result, key=_position)
        del self._kept[self._limit :]

    @property
    def kept(self) -> Sequence[ItemResult]:
        return self._kept

    @property
    def n_others(self) -> int:
        """The number of results that were not kept."""
        return self._n_added - len(self._kept)


def _position(result: ItemResult) -> int:
    item = result.item
    first: int = item.meta["row_indices"][0] if item.row_index is None else item.row_index
    return first


class ResultRow(NamedTuple):
    """One item, on one line per text: ``name`` is accepted by ``llmbatch show``; ``outputs`` are empty if it failed."""

    name: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    failure: str = ""


def result_rows(
    results: Iterable[ItemResult],
    items: Sequence[WorkItem],
    fields: Iterable[str],
    keys: Collection[str] = (),
    *,
    shows_context: bool = True,
) -> list[ResultRow]:
    """Describe results. ``items`` are all items of the batch, ``fields`` the output's fields in the order of the schema.

    API keys that a server repeats in its message are left out. ``shows_context``: the prompt shows the item's whole text,
    and not only columns that it names.
    """
    names, order = ItemNames(items), list(fields)
    return [_row(result, names.of(result.item), order, keys, shows_context) for result in results]


def _row(result: ItemResult, name: str, fields: Sequence[str], keys: Collection[str], shows_context: bool) -> ResultRow:
    item, parsed = result.item, result.accepted.parsed if result.accepted else {}
    inputs = item.columns | ({"input": item.context} if shows_context or not item.columns else {})
    shown = {column: _one_line(text) for column, text in inputs.items() if text != name}
    outputs = {_one_line(field): _one_line(_text(parsed[field])) for field in _ordered(parsed, fields)}
    failure = f"{result.failed.cause}: {_message(result.failed, keys)}" if result.failed else ""
    return ResultRow(_one_line(name), {_one_line(column): text for column, text in shown.items()}, outputs, failure)


def _ordered(parsed: Collection[str], fields: Sequence[str]) -> list[str]:
    # An open schema lets the model add fields of its own.
    return [*(field for field in fields if field in parsed), *(field for field in parsed if field not in fields)]


def _message(failed: FailedAttempt, keys: Collection[str]) -> str:
    return _one_line(without_keys(failed.error.get("message", ""), keys))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    return visible(flatten(text))


class ItemNames:
    """Finds a short name for each item by which ``llmbatch show`` finds it, and no other item."""

    def __init__(self, items: Sequence[WorkItem]) -> None:
        own = ({item.label, item.group_key if item.row_index is None else item.label} for item in items)
        self._names = Counter(name for names in own for name in names)
        # ``show`` also finds items by the label at the start of their partition key.
        self._slugs = {item.partition_key.rpartition("-")[0] for item in items}

    def of(self, item: WorkItem) -> str:
        """The label if it is unique and plain, else the row index if it is no label, else the partition key."""
        label, row = item.label, str(item.row_index)
        if self._names[label] == 1 and composed(label) == label and _PLAIN_LABEL.fullmatch(label):
            return label
        if item.row_index is not None and row not in self._names and row not in self._slugs:
            return row
        return item.partition_key
