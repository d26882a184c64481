"""The Markdown about one item in Dagster: the item, its input, its output, and its failure.

A run's page in Dagster loads these texts for every item, so each has a limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt
from llmbatch_assets.domain.report.items import reasons_of
from llmbatch_assets.domain.report.markdown import fact_table, fenced
from llmbatch_assets.domain.run.remedies import remedy
from llmbatch_assets.domain.text import CUT_MARK, counted, cut, flatten, visible
from llmbatch_assets.domain.usage import TokenUsage, format_cost

INPUT_CHARS = 1_000
OUTPUT_CHARS = 2_000
REASONS_CHARS = 500
ANSWER_CHARS = 1_000
MESSAGE_CHARS = 500
MAX_FIELDS = 40

# A line of the default row template: a column's name and its value. Further lines of the value are indented.
_COLUMN_LINE = re.compile(r"(?P<name>[^\s:][^:]*):(?: (?P<value>.*))?")

Facts = list[tuple[str, Any]]


def item_table(item: WorkItem, output: AcceptedOutput, usage: TokenUsage, *, hit: bool, report: str = "") -> str:
    """Describe an accepted item. ``usage`` is that of all its attempts, ``report`` its address in the report."""
    judge, meta = output.judge or {}, output.meta
    tokens = f"{usage.input_tokens:,} input, {usage.output_tokens:,} output"
    if usage.cached_input_tokens:
        tokens += f" ({usage.cached_input_tokens:,} of the input cached)"
    facts: Facts = [
        *who(item),
        ("Verdict", _verdict(judge)),
        ("Reasons", judge_reasons(judge)),
        ("Attempts", meta["attempt_outer"]),
        ("Cost", format_cost(usage.cost_usd)),
        ("Tokens", tokens),
        ("Latency", f"{output.latency_sec:.3g} s" if output.latency_sec else ""),
        ("Model", meta["model"]),
        ("Source", "cache" if hit else "generated"),
        ("Report", report),
    ]
    return fact_table(("Item", "Value"), _known(facts))


def who(item: WorkItem) -> Facts:
    """Name an item as its table does: its label, row and group."""
    rows = item.meta.get("row_indices") or []
    row = "" if item.row_index is None else f"{item.row_index + 1:,} (row_index {item.row_index})"
    return [
        ("Label", item.label),
        ("Row", row),
        ("Group", item.group_key if item.group_key != item.label else None),
        ("Rows in the group", f"{len(rows):,}" if rows else ""),
    ]


def input_table(context: str) -> str:
    """Show an item's own text: as a table if it lists columns, else as it is."""
    columns = _columns(context)
    if columns is None:
        return fenced(visible(cut(context, INPUT_CHARS)[0]))
    return fact_table(("Input", "Value"), _limited(columns, INPUT_CHARS))


def output_table(parsed: dict[str, Any]) -> str:
    """Show an output's fields. Nested values are JSON."""
    # Files have their fields in alphabetical order, answers in that of the schema.
    ordered = sorted(parsed.items())
    fields = [(name, value if isinstance(value, str) else canonical_json(value)) for name, value in ordered]
    return fact_table(("Output", "Value"), _limited(fields, OUTPUT_CHARS))


def failure_line(item: WorkItem, failure: FailedAttempt) -> str:
    """Describe a failed item on one line of a log."""
    message = cut(visible(flatten(failure.error["message"])), MESSAGE_CHARS)[0]
    attempts = counted(failure.meta["attempt_outer"], "attempt")
    return f"{item.partition_key} failed after {attempts}: {failure.cause}: {message}"


def failure_table(failure: FailedAttempt, older: str, usage: TokenUsage, *, report: str = "") -> str:
    """Describe a failure. ``older`` says which output is shown beside it; ``usage`` is that of all attempts."""
    facts: Facts = [
        ("Cause", failure.cause),
        ("Message", cut(visible(failure.error["message"]), MESSAGE_CHARS)[0]),
        ("What to do", remedy(failure.cause)),
        ("Output shown here", visible(older)),
        ("Judge's reasons", judge_reasons(failure.judge)),
        ("Attempts", failure.meta["attempt_outer"]),
        ("Cost", format_cost(usage.cost_usd)),
        ("Report", report),
    ]
    return fact_table(("Failure", "Value"), _known(facts))


def answer_beginning(failure: FailedAttempt) -> str:
    """Show the beginning of the last answer; empty if there was none."""
    text = failure.raw_text or ""
    return fenced(visible(cut(text, ANSWER_CHARS)[0])) if text.strip() else ""


def judge_reasons(judge: dict[str, Any] | None) -> str:
    """Return the judge's reasons on one line; empty without any."""
    return cut(visible("; ".join(reasons_of(judge))), REASONS_CHARS)[0]


def _verdict(judge: dict[str, Any]) -> str:
    verdict, score = str(judge.get("verdict") or ""), judge.get("score")
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    return ", ".join(filter(None, [verdict, f"score {score:g}" if is_number else ""]))


def _known(facts: Facts) -> Facts:
    return [(name, value) for name, value in facts if value not in (None, "")]


def _columns(context: str) -> Facts | None:
    """Split the text of the default row template into columns; None if it is another text."""
    found: list[tuple[str, list[str]]] = []
    for line in context.splitlines():
        column = _COLUMN_LINE.fullmatch(line)
        if column:
            found.append((column["name"], [column["value"] or ""]))
        elif found and line.startswith("  "):
            found[-1][1].append(line.strip())
        else:
            return None
    return [(name, " ".join(lines)) for name, lines in found] or None


def _limited(rows: Sequence[tuple[str, str]], limit: int) -> Iterator[tuple[str, str]]:
    """Yield the rows, cut so that their values have about ``limit`` characters together."""
    left = limit
    for name, value in rows[:MAX_FIELDS]:
        yield visible(name), visible(value) if len(value) <= left else visible(value[: max(left, 20)]) + CUT_MARK
        left = max(0, left - len(value))
    if len(rows) > MAX_FIELDS:
        yield CUT_MARK.strip(), f"{len(rows) - MAX_FIELDS:,} more"
