"""``llmbatch show``: show everything about one item."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

import click

from llmbatch_assets.cli.session import (
    config_option,
    json_option,
    offline_option,
    open_batch_file,
    print_json,
    print_lines,
    reporting_errors,
)
from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.run.ledger import CallRecord
from llmbatch_assets.domain.text import counted, visible
from llmbatch_assets.domain.usage import TokenUsage, format_cost
from llmbatch_assets.stages.show import AcceptedAttempt, ItemDetails, RejectedAttempt, item_details

# The same names as in llmbatch status.
STATES = {"failed_permanently": "permanently failed", "missing": "not attempted"}


@click.command()
@click.argument("item", metavar="ROW|ITEM")
@config_option
@offline_option
@json_option
def show(item: str, config: str | None, offline: bool, as_json: bool) -> None:
    """Show one item: its prompt, each attempt, and its output.

    ROW is a zero-based row index, like row_index in the artifacts: 0 is the first row below the header. ITEM is a label,
    a group key, or the beginning of a partition key, a work_id or a cache_id (8 digits are enough). If a number is both
    a label and a row index, the item with that label is shown, and a note names the other one.

    The prompt is rendered with the current settings. Control characters are escaped.

    Exit codes: 0 success, 2 no match, several matches, or invalid configuration or input.
    """
    with reporting_errors():
        batch = open_batch_file(config, offline=offline).load()
        found = item_details(batch, item)
        if found.note:
            click.echo(f"note: {visible(found.note)}", err=True)
        if as_json:
            print_json(found.as_json())
            return
        print_lines(*_lines(found, PurePosixPath(batch.parameters.input.path).name))


def _lines(found: ItemDetails, table: str) -> Iterator[str]:
    yield f"{found.partition_key}: {STATES.get(found.state, found.state)}"
    yield f"  {_rows(found.rows, table)}"
    if found.group_key is not None:
        yield f"  group     {found.group_key}"
    yield f"  work_id   {found.work_id}"
    yield f"  cache_id  {found.cache_id}"
    if found.waits_for_judge:
        yield "  a valid answer awaits its judge"
    if found.to_be_made_again:
        yield "  marked for regeneration (--force)"
    yield from _conversation("prompt", found.messages)
    for attempt in found.attempts:
        yield from _attempt(attempt)
    if found.output is not None:
        yield from _titled("output", readable_json(found.output))
    yield from _conversation("judge prompt", found.judge_messages)
    yield from _calls(found.calls)


def _rows(rows: list[int], table: str) -> str:
    """Count rows as people do, from 1, and give the index that ``llmbatch show`` takes."""
    numbers, indices = ", ".join(str(row + 1) for row in rows), ", ".join(map(str, rows))
    return f"{'row' if len(rows) == 1 else 'rows'} {numbers} of {table} (index {indices})"


def _titled(title: str, text: str) -> Iterator[str]:
    yield ""
    yield f"== {title}"
    yield text.rstrip()


def _conversation(title: str, messages: list[dict[str, str]]) -> Iterator[str]:
    for message in messages:
        yield from _titled(f"{title} ({message['role']})", message["content"])


def _attempt(attempt: AcceptedAttempt | RejectedAttempt) -> Iterator[str]:
    rejected = attempt if isinstance(attempt, RejectedAttempt) else None
    yield ""
    yield f"== attempt {attempt.attempt}: {attempt.result}" + (f" ({rejected.cause})" if rejected else "")
    yield f"{attempt.file}  {attempt.created_at_utc}  {_used(attempt.usage)}"
    if rejected:
        yield f"error: {rejected.error.get('message')}"
    if rejected and rejected.raw_text is not None:
        yield f"answer:\n{rejected.raw_text}"
    if attempt.judge:
        yield f"verdict: {readable_json(attempt.judge)}"
    if rejected and rejected.feedback:
        yield f"feedback sent to the model:\n{rejected.feedback}"


def _used(usage: TokenUsage) -> str:
    tokens = f"{usage.input_tokens:,} input and {usage.output_tokens:,} output tokens"
    return f"{counted(usage.requests, 'call')}, {tokens}, {format_cost(usage.cost_usd)}"


def _calls(calls: list[CallRecord]) -> Iterator[str]:
    if calls:
        yield ""
        yield "== calls"
    for call in calls:
        yield (
            f"{call.at_utc}  {call.purpose}  attempt {call.attempt}  {call.provider}/{call.model}  {call.outcome}  "
            f"{call.input_tokens:,} + {call.output_tokens:,} tokens  {format_cost(call.cost_usd)}  {call.latency_sec:.2f} s"
        )
