"""Schema modules as hypothesis draws them, each with answers that it accepts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from llmbatch_assets_tests.domain.strategies import TEXTS

Draw = st.DrawFn
_FIELD_NAMES = ("a", "title", "größe", "x1", "kind", "default", "tags", "number")
_WORDS = st.sampled_from(["red", "it's", 'a "b"', "back\\slash", "", "two words", "ü", "LLMOutput", "str", "1"])
_IMPORTS = (
    "from datetime import date, datetime\nfrom decimal import Decimal\nfrom enum import Enum\nfrom uuid import UUID\n"
)
_PLAIN_IMPORTS = (
    "from typing import Annotated, Dict, List, Literal, Optional, Union\n\n"
    "from pydantic import BaseModel, ConfigDict, Field\n"
)


@dataclass(frozen=True)
class Type:
    """An annotation, and the values that it accepts, as JSON has them."""

    text: str
    values: st.SearchStrategy[Any]


@dataclass(frozen=True)
class DrawnModule:
    """A module, and an answer that its ``LLMOutput`` accepts."""

    source: str
    answer: dict[str, Any]


_SIMPLE = (
    Type("str", TEXTS),
    Type("int", st.integers(-(10**9), 10**9)),
    Type("float", st.floats(-1e9, 1e9)),
    Type("bool", st.booleans()),
    Type("list", st.lists(TEXTS, max_size=2)),
    Type("dict", st.dictionaries(TEXTS, st.integers(0, 9), max_size=2)),
    Type("Annotated[str, Field(min_length=1, max_length=4)]", st.text("abc", min_size=1, max_size=4)),
    Type("Annotated[int, Field(ge=-5, lt=10, description='From -5.')]", st.integers(-5, 9)),
    Type("Annotated[str, Field(pattern='^[a-c]+$')]", st.text("abc", min_size=1, max_size=4)),
)
_FURTHER = (
    Type("date", st.dates().map(str)),
    Type("datetime", st.datetimes().map(lambda moment: moment.isoformat())),
    Type("Decimal", st.integers(-99, 99).map(str)),
    Type("UUID", st.uuids().map(str)),
    Type("set[int]", st.lists(st.integers(0, 9), max_size=2, unique=True)),
    Type("tuple[int, str]", st.tuples(st.integers(0, 9), TEXTS).map(list)),
    Type("tuple[float, ...]", st.lists(st.floats(0, 1), max_size=2)),
)


@st.composite
def modules(draw: Draw, *, full: bool) -> DrawnModule:
    """A module of what all schemas use; a ``full`` one of everything that the grammar knows."""
    known: list[Type] = list(_SIMPLE + _FURTHER if full else _SIMPLE)
    parts = [draw(st.sampled_from(["", "from __future__ import annotations\n\n"])), _IMPORTS if full else ""]
    parts += [_PLAIN_IMPORTS, "\nLIMIT = 7\nNOTHING = None\n" if full else ""]
    if full:
        known.append(_enum(draw, parts))
    for name in draw(st.sampled_from([(), ("Part",), ("Part", "Step")])):
        known.append(Type(name, _model(draw, parts, name, known, full=full)))
    answers = _model(draw, parts, "LLMOutput", known, full=full)
    parts.append(draw(st.sampled_from(["", "\n\n__all__ = ['LLMOutput']\n"])))
    if full:
        parts.append(draw(st.sampled_from(["", "\n\nLLMOutput.model_rebuild()\n"])))
        parts.append(draw(st.sampled_from(["", "\n\nif __name__ == '__main__':\n    print(LLMOutput)\n"])))
    docstring = draw(st.sampled_from(["", '"""A module."""\n\n']))
    return DrawnModule("".join([docstring, *parts]), draw(answers))


def _enum(draw: Draw, parts: list[str]) -> Type:
    words = draw(st.lists(_WORDS, min_size=1, max_size=3, unique=True))
    base = draw(st.sampled_from(["str, Enum", "Enum"]))
    members = "".join(f"    MEMBER_{number} = {word!r}\n" for number, word in enumerate(words))
    parts.append(f"\n\nclass Choice({base}):\n{members}")
    return Type("Choice", st.sampled_from(words))


def _model(draw: Draw, parts: list[str], name: str, known: list[Type], *, full: bool) -> st.SearchStrategy[Any]:
    lines = [f"\n\nclass {name}(BaseModel):"]
    if docstring := draw(st.sampled_from(["", "A class.", 'It\'s "quoted".\n\n    - a list\\\\\n'])):
        lines.append(f'    """{docstring}"""')
    configs = ['ConfigDict(extra="forbid")', "{'extra': 'forbid'}", *(['ConfigDict(title="T")'] if full else [])]
    if config := draw(st.sampled_from(["", *configs])):
        lines.append(f"    model_config = {config}")
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for field in draw(st.lists(st.sampled_from(_FIELD_NAMES), min_size=1, max_size=4, unique=True)):
        kind = draw(types(known))
        if draw(st.booleans()):
            alias = draw(st.sampled_from(["", f"@{field}"])) if full else ""
            lines.append(f"    {field}: {kind.text}{_required(draw, alias)}")
            required[alias or field] = kind.values
        else:
            lines.append(f"    {field}: Optional[{kind.text}]{_missing(draw, full=full)}")
            optional[field] = st.none() | kind.values
    parts.append("\n".join(lines) + "\n")
    return st.fixed_dictionaries(required, optional=optional)


def types(known: list[Type]) -> st.SearchStrategy[Type]:
    """The known types and what can be made of them."""
    words = st.lists(_WORDS, min_size=1, max_size=3, unique=True)
    literals = words.map(lambda some: Type(f"Literal[{', '.join(map(repr, some))}]", st.sampled_from(some)))
    return st.recursive(st.sampled_from(known) | literals, _made_of, max_leaves=3)


def _made_of(inner: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
    return st.one_of(
        st.builds(
            _list_of, inner, st.sampled_from(["list[{}]", "List[{}]", "Annotated[list[{}], Field(max_length=2)]"])
        ),
        st.builds(_mapping_of, inner, st.sampled_from(["dict[str, {}]", "Dict[str, {}]"])),
        st.builds(_nullable, inner, st.sampled_from(["Optional[{}]", "Union[{}, None]", "Union[None, {}]"])),
        st.builds(_either, inner, inner),
    )


def _list_of(kind: Type, spelt: str) -> Type:
    return Type(spelt.format(kind.text), st.lists(kind.values, max_size=2))


def _mapping_of(kind: Type, spelt: str) -> Type:
    return Type(spelt.format(kind.text), st.dictionaries(TEXTS, kind.values, max_size=2))


def _nullable(kind: Type, spelt: str) -> Type:
    return Type(spelt.format(kind.text), st.none() | kind.values)


def _either(one: Type, other: Type) -> Type:
    return Type(f"Union[{one.text}, {other.text}]", one.values | other.values)


def _required(draw: Draw, alias: str) -> str:
    arguments = [draw(st.sampled_from(["", "..."])), f"alias={alias!r}" if alias else ""]
    arguments += [f"description={draw(TEXTS)!r}" if draw(st.booleans()) else ""]
    given = ", ".join(filter(None, arguments))
    return f" = Field({given})" if given else ""


def _missing(draw: Draw, *, full: bool) -> str:
    further = (
        ["Field(None, json_schema_extra={'x': [1, -2.5, None]})", "NOTHING", "Field(NOTHING, examples=[LIMIT])"]
        if full
        else []
    )
    plain = ["None", "Field(None)", "Field(default=None, title='T')", "Field(None, examples=[[1], 'x', {'y': None}])"]
    return f" = {draw(st.sampled_from([*plain, *further]))}"


def spoilt(answer: dict[str, Any], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The answer with one of its values replaced, which may or may not fit."""
    changes = itertools.chain(answer, ["a"])
    return st.tuples(st.sampled_from(sorted(changes)), values).map(lambda change: answer | dict([change]))
