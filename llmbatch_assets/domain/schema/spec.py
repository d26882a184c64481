"""A schema module as data, and its canonical rendering as Python source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

# Modules that a schema may import from, in the order of the rendered imports.
MODULES = {
    "datetime": ("date", "datetime", "time", "timedelta"),
    "decimal": ("Decimal",),
    "enum": ("Enum", "IntEnum", "StrEnum"),
    "typing": ("Annotated", "Any", "Literal"),
    "uuid": ("UUID",),
    "pydantic": (
        *("BaseModel", "ConfigDict", "Field", "StringConstraints"),
        *("PositiveInt", "NegativeInt", "NonNegativeInt", "NonPositiveInt"),
        *("PositiveFloat", "NegativeFloat", "NonNegativeFloat", "NonPositiveFloat", "FiniteFloat"),
        *("StrictStr", "StrictInt", "StrictFloat", "StrictBool", "AwareDatetime", "NaiveDatetime"),
        *("AnyUrl", "AnyHttpUrl", "HttpUrl"),
    ),
}
MAX_LINE_CHARS = 120
_PLAIN_TEXT = re.compile(r'[^\\"]*(?:"(?!"")[^\\"]*)*')


@dataclass(frozen=True)
class Name:
    """The name of a type or of a default factory."""

    id: str


@dataclass(frozen=True)
class Member:
    """A member of an enum of the module, as a default or a choice."""

    enum: str
    name: str


@dataclass(frozen=True)
class Call:
    """A call in the rendering: ``Field(...)`` or ``StringConstraints(...)``."""

    function: str
    arguments: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Parametrized:
    """A type with arguments in brackets. A union has the name ``|``."""

    name: str
    arguments: tuple[Any, ...]


Type = Name | Parametrized


@dataclass(frozen=True)
class FieldSpec:
    """One field: its type and the arguments of its ``Field``; a default comes first."""

    name: str
    type: Type
    arguments: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """A model class. ``config`` holds the settings besides ``extra="forbid"``, which every model has."""

    name: str
    bases: tuple[str, ...]
    docstring: str | None
    config: tuple[tuple[str, Any], ...]
    fields: tuple[FieldSpec, ...]


@dataclass(frozen=True)
class EnumSpec:
    """An enum class."""

    name: str
    bases: tuple[str, ...]
    docstring: str | None
    members: tuple[tuple[str, str | int], ...]


@dataclass(frozen=True)
class SchemaSpec:
    docstring: str | None
    classes: tuple[ModelSpec | EnumSpec, ...]

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        return tuple(made for made in self.classes if isinstance(made, ModelSpec))


def render_schema(spec: SchemaSpec) -> str:
    """Return the source that is stored and imported. Equal specifications give equal source."""
    classes = ["\n".join(_class_lines(made)) + "\n" for made in spec.classes]
    exported = _wrapped("__all__ = [", [_source(made.name) for made in spec.classes], "]", "")
    head = [*_docstring_lines(spec.docstring, ""), "from __future__ import annotations", ""]
    imports = _import_lines(set(used_names(spec)))
    return "\n".join([*head, *imports, "", "", "\n\n".join(classes), "", *exported]) + "\n"


def used_names(spec: SchemaSpec) -> Iterator[str]:
    """Yield the names that the rendering uses: types, factories, functions, base classes."""
    for made in spec.classes:
        yield from made.bases
        if isinstance(made, ModelSpec):
            yield "ConfigDict"
            for field in made.fields:
                yield from _names_in((field.type, *(value for _, value in field.arguments)))
                if _needs_field(field):
                    yield "Field"


def _names_in(parts: Iterable[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, Name):
            yield part.id
        elif isinstance(part, Parametrized):
            yield part.name
            yield from _names_in(part.arguments)
        elif isinstance(part, Call):
            yield part.function
        elif isinstance(part, Member):
            yield part.enum
        elif isinstance(part, list | tuple | dict):
            yield from _names_in(part.values() if isinstance(part, dict) else part)


def _import_lines(used: set[str]) -> Iterator[str]:
    above = False
    for module, known in MODULES.items():
        names = sorted(used & set(known), key=lambda name: (name.lower(), name))
        if names:
            if module == "pydantic" and above:
                yield ""
            above = True
            one_line = [f"from {module} import {', '.join(names)}"]
            yield from one_line if len(names) < 9 else [f"from {module} import (", *(f"    {n}," for n in names), ")"]


def _class_lines(made: ModelSpec | EnumSpec) -> Iterator[str]:
    yield f"class {made.name}({', '.join(made.bases)}):"
    if made.docstring is not None:
        yield from _docstring_lines(made.docstring, "    ")
    if isinstance(made, EnumSpec):
        yield from (f"    {name} = {_source(value)}" for name, value in made.members)
        return
    config = [f"{key}={_source(value)}" for key, value in (("extra", "forbid"), *made.config)]
    yield from _wrapped("    model_config = ConfigDict(", config, ")", "    ")
    if made.fields:
        yield ""
    for field in made.fields:
        yield from _field_lines(field)


def _needs_field(field: FieldSpec) -> bool:
    return bool(field.arguments) and [key for key, _ in field.arguments] != ["default"]


def _field_lines(field: FieldSpec) -> list[str]:
    declared = f"    {field.name}: {_type(field.type)}"
    if not field.arguments:
        return [declared]
    if not _needs_field(field):
        return [f"{declared} = {_source(field.arguments[0][1])}"]
    given = dict(field.arguments)
    first = [] if "default_factory" in given else [_source(given.pop("default")) if "default" in given else "..."]
    arguments = first + [f"{key}={_source(value)}" for key, value in given.items()]
    return _wrapped(f"{declared} = Field(", arguments, ")", "    ")


def _wrapped(opening: str, parts: list[str], closing: str, indent: str) -> list[str]:
    """Return the parts on one line, or one part per line if that would be too long."""
    line = f"{opening}{', '.join(parts)}{closing}"
    if len(line) <= MAX_LINE_CHARS:
        return [line]
    return [opening, *(f"{indent}    {part}," for part in parts), f"{indent}{closing}"]


def _docstring_lines(text: str | None, indent: str) -> list[str]:
    if text is None:
        return []
    plain = _PLAIN_TEXT.fullmatch(text) and not text.endswith('"') and text.replace("\n", "").isprintable()
    lines = [f'{indent}"""{text}"""' if plain and text else f"{indent}{_source(text)}"]
    return [*lines, ""]


def _type(part: Any) -> str:
    """Render a type, or an argument in its brackets."""
    if isinstance(part, Name | Call):
        return _source(part)
    if part is ...:
        return "..."
    if part.name == "|":
        return " | ".join(map(_type, part.arguments))
    return f"{part.name}[{', '.join(map(_source if part.name == 'Literal' else _type, part.arguments))}]"


def _source(value: Any) -> str:
    if isinstance(value, Name):
        return value.id
    if isinstance(value, Member):
        return f"{value.enum}.{value.name}"
    if isinstance(value, Call):
        return f"{value.function}({', '.join(f'{key}={_source(part)}' for key, part in value.arguments)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_source(key)}: {_source(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_source, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_source, value)) + ("," if len(value) == 1 else "") + ")"
    written = repr(value)
    if isinstance(value, str) and written[0] == "'" and '"' not in value:
        return f'"{written[1:-1]}"'
    return written
