"""``llmbatch diff``: the same rows' outputs before and after a change of prompt, schema or model, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from llmbatch_assets.adapters.files.atomic import write_atomically
from llmbatch_assets.cli.plan import show_differences
from llmbatch_assets.cli.session import config_option, console, open_batch_file, set_up_logging, telling_mistakes
from llmbatch_assets.domain.plan.output_diff import LABELS, Comparison, compared, told
from llmbatch_assets.domain.plan.rerun_reasons import LABELS as REASON_LABELS
from llmbatch_assets.domain.text import counted, visible
from llmbatch_assets.stages.compare import Comparing, Known
from llmbatch_assets.stages.project import Batch

SHOWN_ITEMS = 20


@click.command()
@config_option
@click.option(
    "--against",
    default="",
    metavar="SHA",
    help="What to compare with: the sha (or its beginning) of an identity, a prompt or a schema, or a cache id; "
    "default: what was asked last before.",
)
@click.option("--list", "listing", is_flag=True, help="List what else was asked of these items.")
@click.option("--limit", default=None, metavar="N", type=click.IntRange(min=0), help="Show at most N items; 0: all.")
@click.option("--html", default=None, metavar="FILE", type=click.Path(dir_okay=False), help="Write a page, too.")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
@click.option("--offline", is_flag=True, help="Take the outputs of `llmbatch run --offline` for those of now.")
def diff(
    config: str | None, against: str, listing: bool, limit: int | None, html: str | None, as_json: bool, offline: bool
) -> None:
    """Compare the outputs of now with those of before a change of prompt, schema, model or judge.

    Old artifacts are still there; items are matched by their work ids. Nothing is called.

    Exit codes: 0 told, 1 a file cannot be written, 2 wrong usage, configuration or input.
    """
    with telling_mistakes():
        batch = open_batch_file(config, offline=offline).load()
        set_up_logging(batch.parameters.run.log_level)
        comparing = Comparing(batch)
        if listing:
            _tell_known(comparing.known, as_json)
            return
        before = comparing.before(against)
        is_whole = as_json or html is not None
        found = compared(
            comparing.pairs(before.identity), limit if limit is not None else 0 if is_whole else SHOWN_ITEMS
        )
        if html is not None:
            _write_page(Path(html), batch, comparing, before, found)
        if as_json:
            click.echo(json.dumps(_as_json(batch, comparing, before, found), ensure_ascii=False, indent=2))
        else:
            show_differences(comparing.differences(before.identity))
            _show(found, limit)


def _tell_known(known: list[Known], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_known_json(one) for one in known], indent=2))
        return
    for one in known:
        for line in _known_lines(one):
            console.print(visible(line))
    if not known:
        console.print("nothing else was asked of these items")


def _known_lines(one: Known) -> Iterator[str]:
    asked, since = one.identity, (one.used_at_utc or "?")[:16].replace("T", " ")
    words = ", ".join(REASON_LABELS[reason].removesuffix(" changed") for reason in one.changes)
    yield f"{asked.sha[:12]}  asked since {since}, {counted(one.n_outputs, 'output')}, {one.n_failed:,} failed"
    yield f"  prompt {asked.prompt_sha[:8]}, schema {asked.schema_sha[:8]}, model {asked.model_name}"
    yield f"  differs in: {words}"


def _known_json(one: Known) -> dict[str, Any]:
    told = {"used_at_utc": one.used_at_utc, "outputs": one.n_outputs, "failed": one.n_failed, "differs_in": one.changes}
    return {"sha": one.identity.sha, **told, "identity": one.identity.model_dump(mode="json")}


def _as_json(batch: Batch, comparing: Comparing, before: Known, found: Comparison) -> dict[str, Any]:
    return {
        "batch": batch.title,
        "before": _known_json(before),
        "now": {"sha": batch.source.identity.sha, "identity": batch.source.identity.model_dump(mode="json")},
        "differences": comparing.differences(before.identity).as_json(),
        "counts": found.counts,
        "items": [pair.as_json() for pair in found.pairs],
        "left_out": found.left_out,
    }


def _write_page(path: Path, batch: Batch, comparing: Comparing, before: Known, found: Comparison) -> None:
    # Jinja2 is slow to import, and only a page needs it.
    from llmbatch_assets.adapters.pages.diff_page import render_diff

    differences = comparing.differences(before.identity)
    page = {
        "title": batch.title,
        "headline": told(found.counts),
        "before": before.identity.sha,
        "used_at_utc": before.used_at_utc,
        "now": batch.source.identity.sha,
        "prompts": {"Prompt": differences.prompt, "Judge's prompt": differences.judge_prompt},
        "tables": {"Schema": differences.schema, "Configuration": differences.config},
        "pairs": found.pairs,
        "labels": LABELS,
        "left_out": found.left_out,
    }
    write_atomically(path, render_diff(page).encode("utf-8", "backslashreplace"))
    click.echo(f"wrote {path}", err=True)


def _show(found: Comparison, limit: int | None) -> None:
    console.print(f"\n{told(found.counts)}", style="bold")
    table = Table(show_lines=True, expand=True)
    for name, share in (("item", 3), ("field", 2), ("before", 4), ("now", 4)):
        table.add_column(name, ratio=share, overflow="fold")
    shown = found.pairs[: (SHOWN_ITEMS if limit is None else limit) or None]
    for pair in shown:
        name = visible(f"{pair.item.partition_key}\n{LABELS[pair.change]}")
        for one in pair.fields:
            table.add_row(name, visible(one.key), *(visible(value or "") for value in one[1:]))
            name = ""
    if shown:
        console.print(table)
    left = found.left_out + len(found.pairs) - len(shown)
    if left:
        how = "--limit 0, --html FILE or --json shows all" if limit is None else "--limit 0 shows all"
        console.print(f"not shown: {counted(left, 'more item')} that changed; {how}")
