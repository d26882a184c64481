"""The command line: ``llmbatch``."""

from __future__ import annotations

import atexit
import difflib
import gc
from importlib import import_module

import click

# In the order in which --help lists them. Each is defined in the module of its name, which is imported on use.
COMMANDS = {
    "init": "Create a new project in a folder.",
    "check": "Find every mistake in configuration, prompts, schema and table.",
    "plan": "Show what `llmbatch run` would do: items by reason, what changed, tokens, cost and time.",
    "run": "Run the batch: schema, snapshot, work items, outputs, export, report.",
    "status": "Show the state of the batch: items by state, failures by cause, calls and their cost.",
    "show": "Show one item: its prompt, each attempt, and its output.",
    "diff": "Compare current outputs with those from before a change of prompt, schema, model or judge.",
    "prune": "List or delete files that the current settings do not use.",
    "ui": "Open the project in Dagster: lineage, partitions, runs.",
}

# Python's default is 700. Imports make half a million objects that stay; looking for garbage among them again and again took
# a quarter of the time of importing Dagster.
OBJECTS_BETWEEN_COLLECTIONS = 50_000


class _Commands(click.Group):
    """Imports a command only when it is used, because some take seconds to import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
        command: click.Command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if near and args[0] not in COMMANDS:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llmbatch-assets", help="Show the version and exit.")
def main() -> None:
    """Turn every row of a table into a validated, judged and cached JSON output of an LLM.

    Start with: llmbatch init DIR. Each command has its own --help.
    """
    # Skip the garbage collection at exit: with Dagster loaded it takes half a second.
    atexit.register(gc.freeze)
