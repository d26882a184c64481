"""``llmbatch status``: show the state of a batch."""

from __future__ import annotations

from typing import Any

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
from llmbatch_assets.domain.text import counted
from llmbatch_assets.domain.usage import format_cost
from llmbatch_assets.stages.status import BatchStatus, FailuresOfCause, LastRun, batch_status


@click.command()
@config_option
@offline_option
@json_option
def status(config: str | None, offline: bool, as_json: bool) -> None:
    """Show the state of the batch: items by state, failures by cause, calls and their cost.

    An item is accepted, failed (the next run retries it), permanently failed (only --retry-failed retries it) or not
    attempted. States refer to the current settings: after a change of prompt, schema or model, earlier outputs
    are counted separately. Only reads outputs, failures and the call log.

    Exit codes: 0 success, 2 invalid configuration or input.
    """
    with reporting_errors():
        found = batch_status(open_batch_file(config, offline=offline).load())
        if as_json:
            print_json(found.model_dump(mode="json", by_alias=True))
            return
        print_lines(*_lines(found))


def _lines(found: BatchStatus) -> list[str]:
    items = found.items
    return [
        f"{found.title}: {counted(items['total'], 'item')}, model {found.model} ({found.provider})",
        *(["  No run yet; counts are for the current table."] if found.items_are_from == "the table" else []),
        f"  accepted            {items['accepted']:,}",
        f"  failed              {items['failed']:,}" + ("  (the next run retries these)" if items["failed"] else ""),
        f"  permanently failed  {items['failed_permanently']:,}"
        + ("  (only --retry-failed retries these)" if items["failed_permanently"] else ""),
        f"  not attempted       {items['missing']:,}",
        *_notes(found),
        *_failures(found.failures),
        *_spending(found.spent),
        *_last_run(found.last_run),
    ]


def _notes(found: BatchStatus) -> list[str]:
    notes = {
        "valid answers awaiting their judge": found.waiting_for_judge,
        "marked for regeneration (--force)": found.to_be_made_again,
        "outputs of other settings or rows (llmbatch prune)": found.outputs_of_other_settings,
    }
    return [f"  {text}: {count:,}" for text, count in notes.items() if count]


def _failures(failures: list[FailuresOfCause]) -> list[str]:
    lines = ["failures by cause:"] if failures else []
    for one in failures:
        lines += [
            f"  {one.n_items:,} {one.cause}, e.g. {one.example.partition_key}: {one.example.message}",
            f"    {one.example.file}",
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
        f"{format_cost(part['cost_usd'], part['n_unknown_cost'])}"
    )


def _last_run(last: LastRun | None) -> list[str]:
    if last is None:
        return []
    stopped = f", stopped by {last.stopped_by}" if last.stopped_by else ""
    return [f"last run: {last.generated_at_utc}, {last.elapsed_sec} s{stopped}"]
