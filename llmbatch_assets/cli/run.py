"""``llmbatch run``: the stages of a batch in order, in this process, on the project's Dagster instance."""

from __future__ import annotations

import sys

import click

from llmbatch_assets.cli.session import (
    EXIT_STOPPED,
    complain,
    config_option,
    open_batch_file,
    telling_mistakes,
)
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.domain.text import nearest
from llmbatch_assets.stages.project import Batch

ASSETS = (
    *("llm_schema_py", "llm_schema_txt", "input_snapshot", "group_contexts", "work_items"),
    *("llm_outputs", "export", "report"),
)
# One computation makes both.
_TOGETHER = {"group_contexts", "work_items"}


def selected_assets(_context: click.Context, _option: click.Parameter, names: str) -> tuple[str, ...]:
    """The assets of a comma-separated list, in the order in which they run; an empty list is all of them."""
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
    help="Only these, on the artifacts there are.",
)
@click.option("--force", is_flag=True, help="Make again what is there; an output stays until a new one is accepted.")
@click.option("--limit", default=0, metavar="N", type=click.IntRange(min=0), help="Generate at most so many items.")
@click.option(
    "--sample",
    default=0,
    metavar="N",
    type=click.IntRange(min=0),
    help="So many items over all groups, always the same.",
)
@click.option("--retry-failed", is_flag=True, help="Also try again what the provider refused for good.")
@click.option("--offline", is_flag=True, help="Made-up answers instead of a model: a dry run without a call.")
@click.option("--yes", is_flag=True, help="Do not ask where the estimate exceeds the budget or no price is known.")
def run(
    config: str | None,
    select: tuple[str, ...],
    force: bool,
    limit: int,
    sample: int,
    retry_failed: bool,
    offline: bool,
    yes: bool,
) -> None:
    """Run the batch: schema, snapshot, work items, outputs, export, report.

    An item that has an accepted output is not generated again.

    Exit codes: 0 all accepted, 1 stopped, 2 wrong usage, configuration or input, 3 finished with failed items,
    130 or 143 interrupted.
    """
    if (limit or sample or retry_failed) and "llm_outputs" not in select:
        raise click.UsageError("--limit, --sample and --retry-failed are for llm_outputs, which --select leaves out")
    with telling_mistakes():
        batch_file = open_batch_file(config, offline=offline)
        # Importing Dagster takes seconds, which a wrong option or file should not.
        batch = batch_file.load()
        from llmbatch_assets.cli.logs import keep_log

        keep_log(batch)
        from llmbatch_assets.cli.stage_runner import StageRunner
        from llmbatch_assets.stages.check import preflight, require_keys

        # Without --select, what is made again is the outputs.
        forced = set() if not force else {"llm_outputs"} if select == ASSETS else set(select)
        selection = Selection(limit=limit, sample=sample, retry_failed=retry_failed)
        preflight(batch, select, force_schema="llm_schema_py" in forced)
        require_keys(batch, select, selection, forced)
        if "llm_outputs" in select and not yes:
            _ask(batch, selection, forced, select)
        generate = {"limit": limit, "sample": sample, "retry_failed": retry_failed, "force": "llm_outputs" in forced}
        schema = {name: {"force": name in forced} for name in ("llm_schema_py", "llm_schema_txt")}
        sys.exit(StageRunner(batch_file, batch).run(select, {"llm_outputs": generate, **schema}))


def _ask(batch: Batch, selection: Selection, forced: set[str], select: tuple[str, ...]) -> None:
    """Ask at a terminal whether to pay what was not agreed to, and end where the answer is no."""
    if not sys.stdin.isatty():
        return
    from llmbatch_assets.stages.plan import budget_question

    asked = budget_question(batch, selection, force="llm_outputs" in forced, makes_items="work_items" in select)
    if asked and not click.confirm(asked, err=True):
        complain("nothing was called", EXIT_STOPPED)
