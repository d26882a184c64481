"""``python -m llmbatch_assets.cli.docs`` writes what in the repository follows from something else in it.

These are ``docs/configuration.md`` from the models of the configuration, ``docs/cli.md`` from the commands, and the files
of ``llmbatch init`` from the sample. A test holds them to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import click
from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llmbatch_assets.adapters.files.atomic import write_atomically
from llmbatch_assets.cli import main
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.parameters import Parameters

ROOT = Path(__file__).parents[2]
SAMPLE = (
    *("configs/parameters.yaml", "prompts/generation.yaml", "prompts/judge.yaml"),
    *("prompts/schema_auto_py_generation.yaml", "raw_data/input.csv", "schema/llm_schema.py", "workspace.yaml"),
)
_MADE = "<!-- Made by `python -m llmbatch_assets.cli.docs`; changes here are lost. -->"
_CONFIGURATION = f"""# Configuration

{_MADE}

Each file in `configs/` is a batch; `configs/parameters.yaml` is the default one. Every block and every key may be left
out. A name that is not in these tables is refused, and all mistakes of a file are told at once: `llmbatch check`.

The file is the one named by `--config`, else by the environment variable `LLMBATCH_PARAMETERS`, else the nearest
`configs/parameters.yaml` upwards from the working directory. Paths are relative to the project, the folder that holds
`configs/`. `<dir>` is `artifacts.dir`, `<batch>` the name of the file.
"""
_COMMANDS = f"""# Command line

{_MADE}

| exit code | meaning |
| --- | --- |
| 0 | done; for `llmbatch run`: all items that were asked for are accepted |
| 1 | stopped: no server, wrong key, no quota, budget, too many failures |
| 2 | wrong usage, configuration or input, or a key that is not set; nothing was run |
| 3 | finished with failed items |
| 130, 143 | interrupted by Ctrl-C, by SIGTERM |
"""
_LIMITS = {
    annotated_types.Ge: ("ge", "at least"),
    annotated_types.Gt: ("gt", "more than"),
    annotated_types.Le: ("le", "at most"),
    annotated_types.Lt: ("lt", "less than"),
}
_TYPES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    dict: "mapping",
    Any: "anything",
}


def files() -> dict[str, bytes]:
    """The files that follow from others, by their paths in the repository."""
    copies = {f"llmbatch_assets/cli/project/{name}": (ROOT / name).read_bytes() for name in SAMPLE}
    return {"docs/configuration.md": configuration().encode(), "docs/cli.md": commands().encode(), **copies}


def configuration() -> str:
    """A table of keys for each block of the configuration."""
    return "\n".join([_CONFIGURATION, *(_block(name, field) for name, field in Parameters.model_fields.items())])


def _block(name: str, field: FieldInfo) -> str:
    head = f"## `{name}`\n\n{field.description}\n\n| key | value | default | effect |\n| --- | --- | --- | --- |"
    rows = (" | ".join(row) for row in _rows(_model(field.annotation), name))
    return "\n".join([head, *(f"| {row} |" for row in rows), ""])


def _rows(model: type[BaseModel], above: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        key = f"{above}.{name}"
        inner = _inner(field.annotation)
        if inner is not None and get_origin(field.annotation) is None:
            yield from _rows(inner, key)
            continue
        yield _key(key, field), _cell(_value(field)), _cell(_default(field)), _cell(field.description or "")
        if inner is not None:
            yield from _rows(inner, f"{key}.<name>")


def _key(key: str, field: FieldInfo) -> str:
    known = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else []
    others = [str(name) for name in known if name != key.rpartition(".")[2]]
    return f"`{key}`" + "".join(f", also `{name}`" for name in others)


def _model(annotation: Any) -> type[BaseModel]:
    model = _inner(annotation)
    assert model is not None
    return model


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The model that a block, or each value of a mapping, is made of."""
    kind = get_args(annotation)[-1] if get_origin(annotation) is dict else annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _value(field: FieldInfo) -> str:
    limits = [
        f"{words} {getattr(limit, name):g}"
        for limit in field.metadata
        for kind, (name, words) in _LIMITS.items()
        if isinstance(limit, kind)
    ]
    longest = [f"length at most {limit.max_length}" for limit in field.metadata if hasattr(limit, "max_length")]
    choices = field.json_schema_extra.get("enum") if isinstance(field.json_schema_extra, dict) else None
    kind = ", ".join(f"`{choice}`" for choice in choices) if isinstance(choices, list) else _kind(field.annotation)
    return ", ".join([kind, *limits, *longest])


def _kind(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0])
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, UnionType):
        return " or ".join("`null`" if part is NoneType else _kind(part) for part in parts)
    if origin is tuple:
        return f"list: {_kind(parts[0])}"
    return _TYPES.get(origin or annotation, "mapping")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    return "empty" if value == "" else f"`{canonical_json(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def commands() -> str:
    """A section for each command: its help and its options."""
    context = click.Context(main, info_name="llmbatch", **main.context_settings)
    named = ((name, main.get_command(context, name)) for name in main.list_commands(context))
    return "\n".join([_COMMANDS, *(_command(name, command, context) for name, command in named if command)])


def _command(name: str, command: click.Command, above: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=above)
    usage = " ".join(["llmbatch", name, *command.collect_usage_pieces(context)])
    records = [record for one in command.get_params(context) if (record := one.get_help_record(context)) and record[1]]
    rows = [f"| `{_cell(option)}` | {_cell(text)} |" for option, text in records]
    told = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    return "\n".join([f"## `{usage}`", "", "\n\n".join(told), "", "| option | effect |", "| --- | --- |", *rows, ""])


if __name__ == "__main__":
    for path, content in files().items():
        write_atomically(ROOT / path, content)
