"""``llmbatch run``: run the stages of a batch in order, in this process, on the project's Dagster instance."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

import click

from llmbatch_assets.assets import STAGES
from llmbatch_assets.cli.session import (
    EXIT_STOPPED,
    config_option,
    exit_with_error,
    open_batch_file,
    reporting_errors,
    set_up_logging,
)
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.domain.text import counted, nearest
from llmbatch_assets.errors import InputError
from llmbatch_assets.stages.checking.preflight import log_warnings, preflight, require_keys
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.unchanged.run_state import Settled
from llmbatch_assets.stages.unchanged.since_last_run import SinceLastRun

ASSETS = tuple(asset for assets in STAGES.values() for asset in assets)
# Results that a run of few items prints.
SHOWN = 10
# One step makes both assets.
_TOGETHER = {"group_contexts", "work_items"}


def selected_assets(_context: click.Context, _option: click.Parameter, names: str) -> tuple[str, ...]:
    """The assets of a comma-separated list in the order in which they run; all assets if the list is empty."""
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    for name in sorted(wanted - set(ASSETS)):
        near = nearest(name, ASSETS)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(ASSETS)}"
        raise click.BadParameter(f"no asset is named {name!r}; {hint}")
    if wanted & _TOGETHER:
        wanted |= _TOGETHER
    return tuple(name for name in ASSETS if name in wanted or not wanted)


@click.command()
@config_option
@click.option(
    "--select",
    default="",
    metavar="ASSET,...",
    callback=selected_assets,
    help="Run only these assets, on existing artifacts.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Regenerate existing outputs; each is kept until its replacement is accepted. With --select, also rewrite the "
    "schema, export and report as far as they are selected.",
)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Generate at most N items.")
@click.option(
    "--sample",
    metavar="N",
    type=click.IntRange(min=1),
    help="Generate N items spread over all groups; the same N every time.",
)
@click.option(
    "--show",
    metavar="N",
    type=click.IntRange(min=0),
    help=f"Print the first N new results; default: {SHOWN} with --limit or --sample, else none.",
)
@click.option("--retry-failed", is_flag=True, help="Also retry items that the provider permanently refused.")
@click.option("--offline", is_flag=True, help="Dry run: use made-up answers, make no calls.")
@click.option(
    "--yes", is_flag=True, help="Do not ask for confirmation if the estimate exceeds the budget or no price is known."
)
def run(
    config: str | None,
    select: tuple[str, ...],
    force: bool,
    limit: int | None,
    sample: int | None,
    show: int | None,
    retry_failed: bool,
    offline: bool,
    yes: bool,
) -> None:
    """Run the batch: schema, snapshot, work items, outputs, export, report.

    Items that already have an accepted output are not sent to the model again.

    Exit codes: 0 all accepted, 1 stopped, 2 usage error, or invalid configuration or input, 3 finished with failed
    items, 130 or 143 interrupted.
    """
    if (limit or sample or show or retry_failed) and "llm_outputs" not in select:
        raise click.UsageError(
            "--limit, --sample, --show and --retry-failed apply to llm_outputs, which --select does not include"
        )
    with reporting_errors():
        batch_file = open_batch_file(config, offline=offline)
        # Without --select, --force means the outputs only.
        forced = set() if not force else {"llm_outputs"} if select == ASSETS else set(select)
        selection = Selection(limit=limit or 0, sample=sample or 0, retry_failed=retry_failed)
        set_up_logging(logging.getLevelName(logging.WARNING))
        n_shown = show if show is not None else SHOWN if limit or sample else 0
        last = _last_run(batch_file, select, forced)
        if select == ASSETS and not forced and (settled := last.settled()):
            _report_nothing_to_do(last.batch, settled, n_shown)
            return
        # The work that was planned for the check is large.
        warnings, _, last.table = preflight(batch_file, select, forced, last.table_check())
        last.warnings, batch = warnings, last.batch
        # Imported late: Dagster takes seconds to import, and a wrong option or file should be reported at once.
        from llmbatch_assets.cli.stage_runner import StageRunner
        from llmbatch_assets.cli.terminal import set_up_run_logging

        set_up_run_logging(batch)
        log_warnings(warnings)
        require_keys(batch, select, selection, forced)
        if "llm_outputs" in select and not yes:
            _confirm_cost(batch, selection, forced, select)
        sys.exit(StageRunner(batch_file, last, n_shown).run_stages(select, _run_config(selection, forced)))


def _run_config(selection: Selection, forced: set[str]) -> Mapping[str, Mapping[str, object]]:
    """Return the values of the assets' configurations, by asset."""
    generate = {
        "limit": selection.limit,
        "sample": selection.sample,
        "retry_failed": selection.retry_failed,
        "force": "llm_outputs" in forced,
    }
    others = {name: {"force": name in forced} for name in ("llm_schema_py", "llm_schema_txt", "export", "report")}
    return {"llm_outputs": generate, **others}


def _last_run(batch_file: BatchFile, select: tuple[str, ...], forced: set[str]) -> SinceLastRun:
    """Return the state after the last run. Raises ``InputError`` with all mistakes if the batch cannot be loaded."""
    try:
        return SinceLastRun.of(batch_file)
    except InputError:
        preflight(batch_file, select, forced)
        raise


def _report_nothing_to_do(batch: Batch, settled: Settled, n_shown: int) -> None:
    from llmbatch_assets.cli.terminal import report, report_files, report_no_results, set_up_run_logging

    set_up_run_logging(batch)
    log_warnings(settled.warnings)
    n_items = f"{settled.n_items:,}"
    report("Nothing to do: nothing has changed since the last run")
    if n_shown:
        report_no_results(batch)
    report(
        f"{n_items} of {counted(settled.n_items, 'item')} accepted (0 new, {n_items} from cache), 0 failed, 0 not attempted",
        style="bold",
    )
    report(f"  outputs   {batch.layout.llm_outputs}/")
    report_files(batch, ASSETS)


def _confirm_cost(batch: Batch, selection: Selection, forced: set[str], select: tuple[str, ...]) -> None:
    """In a terminal, ask before a run that may exceed the budget or whose cost is unknown; exit if declined."""
    if not sys.stdin.isatty():
        return
    from llmbatch_assets.stages.plan import budget_question

    asked = budget_question(batch, selection, force="llm_outputs" in forced, makes_items="work_items" in select)
    if asked and not click.confirm(asked, err=True):
        exit_with_error("Cancelled. No calls were made.", EXIT_STOPPED)
