"""The command line: ``llmbatch``."""

from __future__ import annotations

import click

from llmbatch_assets.cli.diff import diff
from llmbatch_assets.cli.plan import plan
from llmbatch_assets.cli.run import run
from llmbatch_assets.cli.ui import ui


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llmbatch-assets")
def main() -> None:
    """Turn every row of a table into a validated, judged and cached JSON output of an LLM."""


main.add_command(run)
main.add_command(plan)
main.add_command(diff)
main.add_command(ui)
