"""``llmbatch plan``: what a run would do, why, and what it would take, before a cent is spent."""

from __future__ import annotations

import json

import click
from rich.table import Table

from llmbatch_assets.cli.session import config_option, console, open_batch_file, set_up_logging, telling_mistakes
from llmbatch_assets.domain.cost import shown
from llmbatch_assets.domain.plan.difference import Changed, Differences
from llmbatch_assets.domain.plan.estimate import Estimate, Range
from llmbatch_assets.domain.plan.report import PlanReport, Spending, reason_lines, shown_duration
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.domain.text import counted, visible
from llmbatch_assets.stages.plan import plan_of

MOST_LINES = 40


@click.command()
@config_option
@click.option("--force", is_flag=True, help="As if `llmbatch run --force`.")
@click.option("--limit", default=0, metavar="N", type=click.IntRange(min=0), help="As if `llmbatch run --limit N`.")
@click.option("--sample", default=0, metavar="N", type=click.IntRange(min=0), help="As if `llmbatch run --sample N`.")
@click.option("--retry-failed", is_flag=True, help="As if `llmbatch run --retry-failed`.")
@click.option("--offline", is_flag=True, help="As if `llmbatch run --offline`.")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON, each item with its reasons.")
def plan(
    config: str | None, force: bool, limit: int, sample: int, retry_failed: bool, offline: bool, as_json: bool
) -> None:
    """Tell what `llmbatch run` would do: items by reason, what changed, tokens, cost and time.

    Nothing is called and nothing is written.

    Exit codes: 0 told, 2 wrong usage, configuration or input.
    """
    with telling_mistakes():
        batch = open_batch_file(config, offline=offline).load()
        set_up_logging(batch.parameters.run.log_level)
        selection = Selection(limit=limit, sample=sample, retry_failed=retry_failed)
        report = plan_of(batch, selection, force=force)
    if as_json:
        click.echo(json.dumps(report.as_json(), ensure_ascii=False, indent=2))
    else:
        show(report)


def show(report: PlanReport) -> None:
    """Print the report."""
    for warning in report.warnings:
        console.print(f"warning: {visible(warning)}", style="yellow")
    console.print(visible(f"{report.title}: {report.headline}"), style="bold")
    if report.reasons:
        _show_reasons(report)
    if report.differences:
        show_differences(report.differences)
    if report.estimate.n_items:
        _show_estimate(report.estimate)
        for line in spending_lines(report.spending):
            console.print(line)


def _show_reasons(report: PlanReport) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("why they run")
    table.add_column("items", justify="right")
    for words, count in reason_lines(report.reasons):
        table.add_row(words, f"{count:,}")
    console.print(table)


def show_differences(differences: Differences) -> None:
    """Print what changed since another identity."""
    used = f", asked since {differences.used_at_utc}" if differences.used_at_utc else ""
    console.print(f"\nChanged since identity {differences.against[:12]}{used}:", style="bold")
    for name in ("prompt", "judge_prompt"):
        lines: list[str] = getattr(differences, name)
        if lines:
            console.print(f"{name.replace('_', ' ')}:")
            _show_lines(lines)
    for title, changes in (("schema", differences.schema), ("config", differences.config)):
        if changes:
            console.print(f"{title}:")
            _show_lines([_in_words(one) for one in changes])


def _show_lines(lines: list[str]) -> None:
    for line in lines[:MOST_LINES]:
        style = {"+": "green", "-": "red"}.get(line[:1], "")
        console.print(f"  {visible(line)}", style=style)
    if len(lines) > MOST_LINES:
        console.print(f"  and {counted(len(lines) - MOST_LINES, 'more line')}, in --json")


def _in_words(change: Changed) -> str:
    before, now = ("(none)" if value is None else value for value in change[1:])
    return f"{change.key}: {before} → {now}"


def _show_estimate(estimate: Estimate) -> None:
    console.print(f"\nThe next run, of {counted(estimate.n_items, 'item')}:", style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for end in Range._fields:
        table.add_column(end, justify="right")
    for name, amount in (
        ("calls", estimate.calls),
        ("input tokens", estimate.input_tokens),
        ("output tokens", estimate.output_tokens),
    ):
        table.add_row(name, *(f"{round(end):,}" for end in amount))
    cost = estimate.cost_usd
    table.add_row("cost", *(["unknown"] * 3 if cost is None else map(shown, cost)))
    table.add_row("time", *map(shown_duration, estimate.seconds))
    console.print(table)
    if estimate.n_judged_only:
        console.print(f"{estimate.n_judged_only} of the items have an answer and only lack its verdict")
    if estimate.savings_usd:
        console.print(f"common beginnings in the provider's cache could save {shown(estimate.savings_usd)} of it")
    if estimate.method:
        console.print(estimate.method)


def spending_lines(spending: Spending) -> list[str]:
    """What the budget says, as people read it."""
    lines = []
    most = f"budget.max_cost_usd, {shown(spending.max_cost_usd)}"
    told = {
        "within": f"within {most}",
        "may_exceed": f"may exceed {most}: the run would stop there, and the next one go on",
        "exceeds": f"exceeds {most}: the run would stop there, and the next one go on",
        "price_unknown": "the price of the model is not known; tell it in budget.prices",
        "no_limit": "no limit is set (budget.max_cost_usd)",
    }
    lines.append(told[spending.verdict])
    if spending.left_over:
        lines.append(
            f"left for later runs by budget.max_items, {spending.max_items}: {counted(spending.left_over, 'more item')}"
        )
    return lines
