"""``llmbatch plan``: show the work, reasons and estimated cost of the next run."""

from __future__ import annotations

import logging

import click
from rich.table import Table

from llmbatch_assets.cli.session import (
    config_option,
    console,
    open_batch_file,
    print_json,
    reporting_errors,
    set_up_logging,
)
from llmbatch_assets.domain.plan.difference import ChangedValue, Differences
from llmbatch_assets.domain.plan.estimate import Estimate, Range
from llmbatch_assets.domain.plan.report import BudgetCheck, PlanReport, format_duration
from llmbatch_assets.domain.plan.rerun_reasons import LABELS, count_reasons
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.domain.text import counted, visible
from llmbatch_assets.domain.usage import format_cost
from llmbatch_assets.stages.checking.preflight import preflight
from llmbatch_assets.stages.plan import plan_run

MOST_LINES = 40


@click.command()
@config_option
@click.option("--force", is_flag=True, help="Plan `llmbatch run --force`.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Plan `llmbatch run --limit N`.")
@click.option("--sample", metavar="N", type=click.IntRange(min=1), help="Plan `llmbatch run --sample N`.")
@click.option("--retry-failed", is_flag=True, help="Plan `llmbatch run --retry-failed`.")
@click.option("--offline", is_flag=True, help="Plan `llmbatch run --offline`.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, with the reasons for each item.")
def plan(
    config: str | None,
    force: bool,
    limit: int | None,
    sample: int | None,
    retry_failed: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Show what `llmbatch run` would do: items by reason, what changed, tokens, cost and time.

    Makes no calls and writes nothing.

    Exit codes: 0 success, 2 usage error, or invalid configuration or input.
    """
    with reporting_errors():
        batch_file = open_batch_file(config, offline=offline)
        set_up_logging(logging.getLevelName(logging.WARNING))
        checked = preflight(batch_file)
        batch = batch_file.load()
        set_up_logging(batch.parameters.run.log_level)
        selection = Selection(limit=limit or 0, sample=sample or 0, retry_failed=retry_failed)
        report = plan_run(batch, selection, checked.work, checked.warnings, force=force)
    if as_json:
        print_json(report.as_json())
    else:
        _show(report)


def _show(report: PlanReport) -> None:
    for warning in report.warnings:
        console.print(f"warning: {visible(warning)}", style="yellow")
    console.print(visible(f"{report.title}: {report.headline}"), style="bold")
    if report.reasons:
        table = Table(box=None, pad_edge=False)
        table.add_column("reason")
        table.add_column("items", justify="right")
        for reasons, count in count_reasons(report.reasons):
            table.add_row(", ".join(LABELS[one] for one in reasons), f"{count:,}")
        console.print(table)
    if report.differences:
        show_differences(report.differences)
    if report.estimate.n_items:
        _show_estimate(report.estimate)
        _show_budget(report.budget)


def show_differences(differences: Differences) -> None:
    """Print what changed since another identity."""
    used = f", in use since {differences.used_at_utc}" if differences.used_at_utc else ""
    console.print(f"\nChanged since settings {differences.against[:12]}{used}:", style="bold")
    for title, lines in (
        ("prompt", differences.prompt),
        ("judge prompt", differences.judge_prompt),
        ("schema", [_in_words(one) for one in differences.schema]),
        ("config", [_in_words(one) for one in differences.config]),
    ):
        if lines:
            console.print(f"{title}:")
        for line in lines[:MOST_LINES]:
            style = {"+": "green", "-": "red"}.get(line[:1], "")
            console.print(f"  {visible(line)}", style=style)
        if len(lines) > MOST_LINES:
            console.print(f"  and {counted(len(lines) - MOST_LINES, 'more line')}, in --json")


def _in_words(change: ChangedValue) -> str:
    before, now = ("(none)" if value is None else value for value in (change.before, change.now))
    return f"{change.key}: {before} → {now}"


def _show_estimate(estimate: Estimate) -> None:
    console.print(f"\nEstimate for the next run of {counted(estimate.n_items, 'item')}:", style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for end in Range._fields:
        table.add_column(end, justify="right")
    for name in ("calls", "input_tokens", "output_tokens"):
        table.add_row(name.replace("_", " "), *(f"{round(end):,}" for end in getattr(estimate, name)))
    table.add_row("cost", *map(format_cost, estimate.cost_usd) if estimate.cost_usd else ["unknown"] * 3)
    table.add_row("time", *map(format_duration, estimate.seconds))
    console.print(table)
    if estimate.n_judged_only:
        console.print(f"{counted(estimate.n_judged_only, 'item')} already answered, only the verdict is missing")
    if estimate.savings_usd:
        console.print(f"the provider's prompt cache could save {format_cost(estimate.savings_usd)} of it")
    if estimate.method:
        console.print(estimate.method)


def _show_budget(budget: BudgetCheck) -> None:
    limit = f"budget.max_cost_usd, {format_cost(budget.max_cost_usd)}"
    stops = "the run would stop there; the next one continues"
    lines = {
        "within": f"within {limit}",
        "may_exceed": f"may exceed {limit}: {stops}",
        "exceeds": f"exceeds {limit}: {stops}",
        "price_unknown": "the price of the model is unknown; set it in budget.prices",
        "no_limit": "no cost limit is set (budget.max_cost_usd)",
    }
    console.print(lines[budget.verdict])
    if budget.left_over:
        left = counted(budget.left_over, "more item")
        console.print(f"left for later runs by budget.max_items, {budget.max_items}: {left}")
