"""``llmbatch diff``: compare outputs of the same rows before and after a change of settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from llmbatch_assets.cli.plan import show_differences
from llmbatch_assets.cli.session import (
    config_option,
    console,
    open_batch_file,
    print_json,
    reporting_errors,
    set_up_logging,
)
from llmbatch_assets.domain.plan.difference import CHANGE_LABELS, Comparison, compare_outputs
from llmbatch_assets.domain.plan.rerun_reasons import LABELS
from llmbatch_assets.domain.text import counted, visible
from llmbatch_assets.stages.compare import Comparer, PreviousIdentity

SHOWN_ITEMS = 20
NOTHING = "Nothing to compare: these items were never generated with other settings."


@click.command()
@config_option
@click.option(
    "--against",
    default="",
    metavar="SHA",
    help="Compare with these settings: the SHA (or its beginning) of an identity, a prompt or a schema, or a cache ID.  "
    "Default: the previous settings.",
)
@click.option("--list", "listing", is_flag=True, help="List the other settings under which these items have outputs.")
@click.option("--limit", default=None, metavar="N", type=click.IntRange(min=0), help="Show at most N items; 0: all.")
@click.option("--html", default=None, metavar="FILE", type=click.Path(dir_okay=False), help="Also write an HTML page.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--offline", is_flag=True, help="Use the --offline outputs as the current ones.")
def diff(
    config: str | None, against: str, listing: bool, limit: int | None, html: str | None, as_json: bool, offline: bool
) -> None:
    """Compare current outputs with those from before a change of prompt, schema, model or judge.

    Earlier artifacts stay on disk; items are matched by work ID. If there are none, says so. Makes no calls.

    Exit codes: 0 success, 1 a file cannot be written, 2 usage error, or invalid configuration or input.
    """
    with reporting_errors():
        batch = open_batch_file(config, offline=offline).load()
        set_up_logging(batch.parameters.run.log_level)
        comparer = Comparer(batch)
        if listing:
            _show_identities(comparer.identities, as_json)
            return
        before = comparer.before(against)
        if before is None:
            _show_nothing(comparer, as_json)
            return
        default_limit = 0 if as_json or html is not None else SHOWN_ITEMS
        found = compare_outputs(comparer.pairs(before.identity), default_limit if limit is None else limit)
        if html is not None:
            comparer.write_page(Path(html), before, found)
            click.echo(visible(f"wrote {html}"), err=True)
        if as_json:
            print_json(_as_json(comparer, before, found))
        else:
            show_differences(comparer.differences(before.identity))
            _show(found, limit)


def _show_nothing(comparer: Comparer, as_json: bool) -> None:
    """Say that there is nothing to compare. This is a result, not an error."""
    if as_json:
        print_json(_as_json(comparer, None, compare_outputs((), 0)))
    else:
        console.print(NOTHING)


def _show_identities(identities: list[PreviousIdentity], as_json: bool) -> None:
    if as_json:
        print_json([one.as_json() for one in identities])
        return
    for one in identities:
        for line in _lines_of(one):
            console.print(visible(line))
    if not identities:
        console.print(NOTHING)


def _lines_of(one: PreviousIdentity) -> Iterator[str]:
    identity, since = one.identity, (one.used_at_utc or "?")[:16].replace("T", " ")
    changes = ", ".join(LABELS[reason].removesuffix(" changed") for reason in one.changes)
    yield f"{identity.sha[:12]}  in use since {since}, {counted(one.n_outputs, 'output')}, {one.n_failed:,} failed"
    yield f"  prompt {identity.prompt_sha[:8]}, schema {identity.schema_sha[:8]}, model {identity.model_name}"
    yield f"  differs in: {changes}"


def _as_json(comparer: Comparer, before: PreviousIdentity | None, found: Comparison) -> dict[str, Any]:
    now = comparer.batch.source.identity
    return {
        "batch": comparer.batch.title,
        "before": before.as_json() if before else None,
        "now": {"sha": now.sha, "identity": now.model_dump(mode="json")},
        "differences": comparer.differences(before.identity).as_json() if before else None,
        "counts": found.counts,
        "items": [pair.as_json() for pair in found.pairs],
        "left_out": found.left_out,
    }


def _show(found: Comparison, limit: int | None) -> None:
    console.print(f"\n{found.headline}", style="bold")
    table = Table(show_lines=True, expand=True)
    for name, share in (("item", 3), ("field", 2), ("before", 4), ("now", 4)):
        table.add_column(name, ratio=share, overflow="fold")
    pairs = found.pairs[: (SHOWN_ITEMS if limit is None else limit) or None]
    for pair in pairs:
        name = visible(f"{pair.item.partition_key}\n{CHANGE_LABELS[pair.change]}")
        for one in pair.fields:
            table.add_row(name, visible(one.key), *(visible(value or "") for value in one[1:]))
            name = ""
    if pairs:
        console.print(table)
    left = found.left_out + len(found.pairs) - len(pairs)
    if left:
        how = "--limit 0, --html FILE or --json shows all" if limit is None else "--limit 0 shows all"
        console.print(f"not shown: {counted(left, 'more item')} that changed; {how}")
