"""``llmbatch show``: one item in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from llmbatch_assets.cli.session import (
    config_option,
    json_option,
    offline_option,
    open_batch_file,
    print_json,
    print_line,
    reporting_errors,
)
from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.cost import shown
from llmbatch_assets.domain.text import counted
from llmbatch_assets.stages.show import item_view

# As llmbatch status says it.
STATES = {"failed_permanently": "failed for good"}


@click.command()
@click.argument("item", metavar="ROW|ITEM")
@config_option
@offline_option
@json_option
def show(item: str, config: str | None, offline: bool, as_json: bool) -> None:
    """Show one item: its prompt, every attempt, and the outcome.

    ROW is a row's index from 0, as row_index in the artifacts: 0 is the first row below the header. ITEM is a group's
    key, or the beginning of a partition key (its label is enough), of a work_id or of a cache_id (8 digits are enough).

    What is asked is shown as the present settings ask it. Characters that a terminal would act on are shown as escapes.

    Exit codes: 0, or 2 where no item or several are meant, or for wrong configuration or input.
    """
    with reporting_errors():
        batch = open_batch_file(config, offline=offline).load()
        found = item_view(batch, item)
        if as_json:
            print_json(found)
            return
        for line in _lines(found):
            print_line(line)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['partition_key']}: {STATES.get(found['state'], found['state'])}"
    yield f"  rows      {', '.join(map(str, found['rows']))} (from 0)"
    if found["group_key"] is not None:
        yield f"  group     {found['group_key']}"
    yield f"  work_id   {found['work_id']}"
    yield f"  cache_id  {found['cache_id']}"
    if found["waits_for_judge"]:
        yield "  a valid answer waits for its judge"
    if found["to_be_made_again"]:
        yield "  marked to be made again"
    yield from _conversation("asked", found["messages"])
    for attempt in found["attempts"]:
        yield from _attempt(attempt)
    if found["output"] is not None:
        yield from _titled("output", readable_json(found["output"]))
    yield from _conversation("asked of the judge", found["judge_messages"])
    yield from _calls(found["calls"])


def _titled(title: str, text: str) -> Iterator[str]:
    yield ""
    yield f"== {title}"
    yield text.rstrip()


def _conversation(title: str, messages: list[dict[str, str]]) -> Iterator[str]:
    for message in messages:
        yield from _titled(f"{title}, {message['role']}", message["content"])


def _attempt(attempt: dict[str, Any]) -> Iterator[str]:
    cause = f" ({attempt['cause']})" if attempt["result"] == "failed" else ""
    yield ""
    yield f"== attempt {attempt['attempt']}: {attempt['result']}{cause}"
    yield f"{attempt['file']}  {attempt['created_at_utc']}  {_used(attempt['usage'] or {})}"
    if attempt.get("error"):
        yield f"error: {attempt['error'].get('message')}"
    if attempt.get("raw_text") is not None:
        yield f"answer:\n{attempt['raw_text']}"
    if attempt["judge"]:
        yield f"verdict: {readable_json(attempt['judge'])}"
    if attempt.get("feedback"):
        yield f"told to the model:\n{attempt['feedback']}"


def _used(usage: dict[str, Any]) -> str:
    tokens = f"{usage.get('input_tokens', 0):,} input and {usage.get('output_tokens', 0):,} output tokens"
    return f"{counted(usage.get('requests', 0), 'call')}, {tokens}, {shown(usage.get('cost_usd'))}"


def _calls(calls: list[dict[str, Any]]) -> Iterator[str]:
    if calls:
        yield ""
        yield "== calls"
    for call in calls:
        yield (
            f"{call['at_utc']}  {call['purpose']}  attempt {call['attempt']}  {call['provider']}/{call['model']}  "
            f"{call['outcome']}  {call['input_tokens']:,} + {call['output_tokens']:,} tokens  {shown(call['cost_usd'])}  "
            f"{call['latency_sec']:.2f} s"
        )
