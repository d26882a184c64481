"""``llmbatch status``: how a batch stands, from its files alone."""

from __future__ import annotations

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
from llmbatch_assets.domain.cost import shown
from llmbatch_assets.domain.text import counted
from llmbatch_assets.stages.status import batch_status


@click.command()
@config_option
@offline_option
@json_option
def status(config: str | None, offline: bool, as_json: bool) -> None:
    """Show the state of the batch: items by state, failures by cause, calls and their cost.

    An item is accepted, failed (the next run tries again), failed for good (only --retry-failed does) or missing, by
    what is asked at present: after a change of prompt, schema or model, outputs of before count as those of other
    settings. Nothing is opened but failures and the ledger of calls.

    Exit codes: 0, or 2 for wrong configuration or input.
    """
    with reporting_errors():
        batch = open_batch_file(config, offline=offline).load()
        found = batch_status(batch)
        if as_json:
            print_json(found)
            return
        for line in _lines(found):
            print_line(line)


def _lines(found: dict[str, Any]) -> list[str]:
    items = found["items"]
    return [
        f"{found['title']}: {counted(items['total'], 'item')}, model {found['model']} ({found['provider']})",
        *([] if found["items_are_from"] == "the last run" else ["  no run has planned them yet: as the table is now"]),
        f"  accepted         {items['accepted']:,}",
        f"  failed           {items['failed']:,}" + ("  (the next run tries again)" if items["failed"] else ""),
        f"  failed for good  {items['failed_permanently']:,}"
        + ("  (only --retry-failed tries again)" if items["failed_permanently"] else ""),
        f"  missing          {items['missing']:,}",
        *_notes(found),
        *_failures(found["failures"]),
        *_spending(found["spent"]),
        *_last_run(found["last_run"]),
    ]


def _notes(found: dict[str, Any]) -> list[str]:
    told = {
        "valid answers that wait for their judge": found["waiting_for_judge"],
        "marked to be made again": found["to_be_made_again"],
        "outputs of other settings or rows (llmbatch prune)": found["outputs_of_other_settings"],
    }
    return [f"  {text}: {count:,}" for text, count in told.items() if count]


def _failures(failures: list[dict[str, Any]]) -> list[str]:
    lines = ["failures by cause:"] if failures else []
    for failure in failures:
        example = failure["example"]
        lines += [
            f"  {failure['n_items']:,} {failure['cause']}, e.g. {example['partition_key']}: {example['message']}",
            f"    {example['file']}",
        ]
    return lines


def _spending(spent: dict[str, Any]) -> list[str]:
    if not spent["total"]["requests"]:
        return ["no calls so far"]
    return [
        f"so far: {_sums(spent['total'])}",
        *(f"  {part['model']}: {_sums(part)}" for part in spent["by_model"]),
        *(f"  attempt {part['attempt']}: {_sums(part)}" for part in spent["by_attempt"]),
    ]


def _sums(part: dict[str, Any]) -> str:
    return (
        f"{counted(part['requests'], 'call')}, {part['input_tokens']:,} input and {part['output_tokens']:,} output tokens, "
        f"{shown(part['cost_usd'], part['n_unknown_cost'])}"
    )


def _last_run(last: dict[str, Any] | None) -> list[str]:
    if last is None:
        return []
    stopped = f", stopped by {last['stopped_by']}" if last["stopped_by"] else ""
    return [f"last run: {last['generated_at_utc']}, {last['elapsed_sec']} s{stopped}"]
