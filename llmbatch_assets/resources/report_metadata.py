"""The report as Dagster shows it: the numbers that are looked at first, tables, charts, and the files."""

from typing import Any

import dagster as dg

from llmbatch_assets.adapters.pages.report_page import render_charts, render_summary
from llmbatch_assets.domain.report.page import all_charts
from llmbatch_assets.stages.report import Delivered


def report_metadata(delivered: Delivered) -> dict[str, Any]:
    """The metadata of a materialization of ``report``. Numbers are numbers, so that Dagster plots them over time."""
    page, manifest = delivered.page, delivered.manifest
    numbers = {**manifest["counts"], **page["numbers"]}
    return {
        **{name: number for name, number in numbers.items() if number is not None},
        "summary": dg.MetadataValue.md(render_summary(page)),
        "charts": dg.MetadataValue.md(render_charts(all_charts(page))),
        **{f"{name} file": dg.MetadataValue.path(path) for name, path in manifest["files"].items()},
    }
