"""The grammar of schema modules beyond the corpus: limits, messages, additions and omissions."""

from __future__ import annotations

import ast

import pytest

from llmbatch_assets.domain.schema.grammar import MAX_CLASSES, MAX_FIELDS, MAX_SOURCE_CHARS, parse_schema
from llmbatch_assets.domain.schema.spec import MODULES, EnumSpec, FieldSpec, Name, SchemaSpec, render_schema
from llmbatch_assets.domain.schema.type_grammar import MAX_PARTS
from llmbatch_assets.domain.schema.value_grammar import LONGEST, MAX_DEPTH, MAX_PATTERN_CHARS
from llmbatch_assets.errors import SchemaError

HEAD = "from typing import Annotated, List, Literal, Optional\n\nfrom pydantic import BaseModel, ConfigDict, Field\n\n"
BODY = f"{HEAD}class LLMOutput(BaseModel):\n    name: str = 'x'\n"


def refused(source: str) -> str:
    with pytest.raises(SchemaError) as refusal:
        parse_schema(source, "schema/x.py")
    return str(refusal.value)


# Limits: accepted at the limit; refused above it, with a message that names the limit.


def classes(count: int) -> str:
    return HEAD + "".join(f"class C{number}(BaseModel):\n    a: str\n" for number in range(count))


def fields(count: int) -> str:
    return f"{HEAD}class LLMOutput(BaseModel):\n" + "".join(f"    f{number}: str\n" for number in range(count))


def characters(count: int) -> str:
    return BODY.ljust(count, "\n")


def pattern(count: int) -> str:
    return f"{BODY}    a: str = Field('', pattern='{'a' * count}')\n"


def choices(count: int) -> str:
    return f"{BODY}    a: Literal[{', '.join(map(str, range(count)))}] = 0\n"


def length(longest: int) -> str:
    return f"{BODY}    a: str = Field('', max_length={longest})\n"


@pytest.mark.parametrize(
    ("make", "most", "reported"),
    [
        (classes, MAX_CLASSES, f"class number {MAX_CLASSES + 1}"),
        (fields, MAX_FIELDS, f"more than {MAX_FIELDS} fields"),
        (characters, MAX_SOURCE_CHARS, f"at most {MAX_SOURCE_CHARS}"),
        (pattern, MAX_PATTERN_CHARS, f"at most {MAX_PATTERN_CHARS} characters"),
        (choices, MAX_PARTS, f"at most {MAX_PARTS}"),
        (length, LONGEST, "max_length"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_module_at_a_limit_is_accepted_and_one_beyond_it_refused(make: object, most: int, reported: str) -> None:
    assert callable(make)
    assert parse_schema(make(most), "s.py").models
    assert reported in refused(make(most + 1))


def test_a_type_may_be_nested_deeply() -> None:
    def nested(depth: int) -> str:
        return f"{BODY}    a: {'list[' * depth}str{']' * depth}\n"

    assert parse_schema(nested(MAX_DEPTH // 2), "s.py").models
    assert "nested too deeply" in refused(nested(MAX_DEPTH))


# Messages.


def test_a_refusal_names_the_file_and_the_line() -> None:
    reported = refused("from pydantic import BaseModel\nclass A(BaseModel):\n    x: str\n    y: bytes\n")
    assert reported.startswith("schema/x.py:4: ")
    assert "bytes" in reported


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        # Common mistakes, and what to write instead.
        ("from pydantic import field_validator", "llm_schema.trust: true"),
        ("from pydantic import EmailStr", "use str with a pattern"),
        ("import os", "plain import"),
        ("LLMOutput.x = 1", "literal constants and classes only"),
        ("def f(): pass", "a function"),
    ],
)
def test_a_refusal_says_what_to_write_instead(line: str, advice: str) -> None:
    assert advice in refused(f"{BODY}{line}\n")


def test_a_pattern_that_does_not_compile_is_reported_with_the_reason() -> None:
    reported = refused(f"{BODY}    a: str = Field('', pattern='(?=x)')\n")
    assert "schema/x.py:7" in reported
    assert "look-around" in reported


# What is read.


@pytest.mark.parametrize(
    "config",
    [
        "",
        "    model_config = ConfigDict()\n",
        "    model_config = {}\n",
        "    model_config = ConfigDict(title='T')\n",
        "    model_config: ConfigDict = ConfigDict(extra='forbid')\n",
        "    model_config = {'extra': 'forbid', 'title': 'T'}\n",
    ],
)
def test_a_class_that_does_not_forbid_other_fields_is_made_to(config: str) -> None:
    rendering = render_schema(parse_schema(f"{HEAD}class LLMOutput(BaseModel):\n{config}    a: str\n", "s.py"))
    assert rendering.count('model_config = ConfigDict(extra="forbid"') == 1
    assert ('title="T"' in rendering) == ("title" in config)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a: Optional[str] = None", "a: str | None = None"),
        ("a: List[str]", "a: list[str]"),
        ("a: 'Annotated[str, Field(max_length=3)]'", "a: Annotated[str, Field(max_length=3)]"),
        ("a: str = Field(default='x')", "a: str = 'x'"),
        ("a: str = Field(...)", "a: str"),
        ("a: str = ...", "a: str"),
        ("a: Optional[Optional[str]]", "a: str | None"),
    ],
)
def test_two_spellings_of_a_field_are_one(written: str, read: str) -> None:
    one, other = (parse_schema(f"{HEAD}class LLMOutput(BaseModel):\n    {line}\n", "s.py") for line in (written, read))
    assert one == other
    assert render_schema(one) == render_schema(other)


def test_constants_are_inlined() -> None:
    spec = parse_schema(
        f"{HEAD}MOST = 3\nMOODS: list = ['a']\n\nclass LLMOutput(BaseModel):\n"
        "    a: str = Field('x', max_length=MOST, examples=MOODS)\n",
        "s.py",
    )
    [model] = spec.models
    assert model.fields == (FieldSpec("a", Name("str"), (("default", "x"), ("max_length", 3), ("examples", ["a"]))),)


def test_an_enum_is_read_with_its_members_in_order() -> None:
    spec = parse_schema(f"from enum import Enum\n{BODY}\nclass Mood(str, Enum):\n    B = 'b'\n    A = 'a'\n", "s.py")
    assert spec.classes[1] == EnumSpec("Mood", ("str", "Enum"), None, (("B", "b"), ("A", "a")))


def test_code_that_was_not_read_is_not_rendered() -> None:
    source = f"{BODY}    'a text below a field'\n# a comment: import os\n\nif __name__ == '__main__':\n    print(open('x'))\n"
    rendering = render_schema(parse_schema(source, "s.py"))
    tree = ast.parse(rendering)
    for word in ("comment", "below", "print", "open", "__name__"):
        assert word not in rendering
    assert {type(node) for node in tree.body} <= {ast.Expr, ast.ImportFrom, ast.ClassDef, ast.Assign}
    assert {node.module for node in tree.body if isinstance(node, ast.ImportFrom)} <= {"__future__", *MODULES}


def test_the_order_of_classes_and_fields_is_that_of_the_source() -> None:
    spec: SchemaSpec = parse_schema(
        f"{HEAD}class B(BaseModel):\n    z: str\n    a: str\n\nclass A(BaseModel):\n    b: B\n", "s.py"
    )
    assert [(model.name, [field.name for field in model.fields]) for model in spec.models] == [
        ("B", ["z", "a"]),
        ("A", ["b"]),
    ]
