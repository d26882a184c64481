"""The grammar of schema modules beyond the corpus: limits, messages, additions and omissions."""

from __future__ import annotations

import ast

import pytest

from llmbatch_assets.domain.schema.grammar import (
    MAX_CLASSES,
    MAX_FIELDS,
    MAX_MISTAKES,
    MAX_SOURCE_CHARS,
    parse_schema,
    schema_mistakes,
)
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
        ("import os", "`import os`"),
        ("LLMOutput.x = 1", "literal constants, type aliases and classes"),
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


# All mistakes of a module.

GOOD = """from pydantic import BaseModel, Field


class LLMOutput(BaseModel):
    answer: str = Field(..., description="It.")
    sure: bool
"""


def lines(source: str) -> list[int]:
    return [int(reported.split(":")[1]) for reported in schema_mistakes(source, "s.py")]


def test_a_good_module_has_none() -> None:
    assert schema_mistakes(GOOD, "s.py") == []


def test_each_mistake_is_reported_with_its_own_line() -> None:
    bad = GOOD.replace("from pydantic", "import os\nprint(1)\nfrom pydantic", 1)
    bad = bad.replace("sure: bool", "sure: bool = os.path\n    def run(\n        self,\n    ): ...\n    other: foo()")
    assert lines(bad) == [1, 2, 8, 9, 12]


def test_every_mistake_of_every_class_is_reported() -> None:
    assert lines(GOOD + "\n\nclass Other(BaseModel):\n    a: f()\n    b: g()\n") == [10, 11]
    assert lines("class A(Base):\n    x: f()\n\nimport os\n") == [1, 4]
    assert len(schema_mistakes("this is no Python", "s.py")) == 1
    assert len(schema_mistakes(GOOD + "".join(f"import os{n}\n" for n in range(500)), "s.py")) == MAX_MISTAKES


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # A validator left its decorator behind, which was reported as a syntax error.
        (f"{GOOD}    @field_validator('answer')\n    @classmethod\n    def check(cls, v): return v\n", [9]),
        (f"{GOOD}    @property\n    def both(self) -> str:\n        return ''\n", [8]),
        ("class LLMOutput: pass\n", [1]),
        # Whatever uses a name is no mistake if only its definition is.
        (f"MAX = f()\n{GOOD}    text: str = Field(max_length=MAX)\n", [1]),
        (f"Short = Annotated[str, f()]\n{GOOD}    text: Short\n    texts: list[Short]\n", [1]),
        (f"from pydantic import EmailStr\n{GOOD}    text: EmailStr\n", [1]),
        (f"{GOOD}\nclass A(Base):\n    x: str\n\nclass B(A):\n    y: str\n", [8]),
        (f"from enum import Enum\nclass E(Enum):\n    A = f()\n{GOOD}", [3]),
        # A broken field hides no mistake elsewhere.
        (f"{GOOD}    other: f()\n    more: other\n", [7, 8]),
    ],
)
def test_no_mistake_is_the_consequence_of_another(source: str, expected: list[int]) -> None:
    assert lines(source) == expected


def test_a_plain_import_is_named_with_the_reason_and_the_remedy() -> None:
    (reported,) = schema_mistakes(f"import os\n{GOOD}", "s.py")
    assert reported == (
        "s.py:1: `import os` is not allowed in a schema; the file only declares models and is never run, so it can use no "
        "other modules; remove the line, or set llm_schema.trust: true to run your own code"
    )
    (reported,) = schema_mistakes(f"import typing as t\n{GOOD}", "s.py")
    assert reported.endswith("write `from typing import Annotated` with the names that you use")


# Names for types.


def test_a_type_statement_is_read_by_every_python() -> None:
    source = GOOD.replace("\n\nclass", "\ntype Short = list[str] | None\n\nclass").replace("sure: bool", "sure: Short")
    alias = source.replace("type Short", "Short")
    assert render_schema(parse_schema(source, "s.py")) == render_schema(parse_schema(alias, "s.py"))
    # The text of a module is not touched.
    docstring = '"""\ntype A = x\n"""\n'
    assert parse_schema(docstring + source, "s.py").docstring == "\ntype A = x\n"


@pytest.mark.parametrize(
    "line",
    [
        "Short = str\nShort = int",
        "str = int",
        "LLMOutput = int",
        "X = Unknown[int]",
        "X = list[Unknown]",
        "X = f()",
        "X: TypeAlias = f()",
        "X = int | f()",
    ],
)
def test_an_alias_that_is_no_type_or_has_a_taken_name_is_refused(line: str) -> None:
    assert "is not allowed in a schema" in refused(f"{BODY}{line}\n")


def test_aliases_cannot_grow_without_limit() -> None:
    wide = ["A0 = tuple[int, str]", *(f"A{n + 1} = tuple[A{n}, A{n}, A{n}, A{n}]" for n in range(30))]
    assert "repeated use of the large A" in refused("\n".join([BODY, *wide]))
    deep = ["A0 = list[int]", *(f"A{n + 1} = list[A{n}]" for n in range(MAX_DEPTH + 5))]
    assert "nested too deeply" in refused("\n".join([BODY, *deep]))


@pytest.mark.parametrize(
    "field",
    [
        "a: str = Field(description=Rank.ONE)",
        "a: str = Field(max_length=Rank.ONE)",
        "a: str = Field('', examples=[Rank.ONE])",
        "a: Rank = Rank.THREE",
        "a: Rank = Rank.__members__",
        "a: Rank = LLMOutput.ONE",
    ],
)
def test_a_member_of_an_enum_is_a_default_or_a_choice_only(field: str) -> None:
    enum = "from enum import Enum\nclass Rank(Enum):\n    ONE = 'one'\n"
    assert "is not allowed in a schema" in refused(f"{enum}{BODY}    {field}\n")


def test_an_unknown_member_is_answered_with_the_known_ones() -> None:
    enum = "from enum import Enum\nclass Rank(Enum):\n    ONE = 'one'\n    TWO = 'two'\n"
    assert "the unknown member Rank.THREE is not allowed in a schema; write one of: Rank.ONE, Rank.TWO" in refused(
        f"{enum}{BODY}    a: Rank = Rank.THREE\n"
    )


def test_a_member_as_a_choice_is_its_value() -> None:
    enum = "from enum import Enum\nfrom typing import Literal\nclass Rank(Enum):\n    ONE = 'one'\n"
    rendered = render_schema(parse_schema(f"{enum}{BODY}    a: Literal[Rank.ONE] = Rank.ONE\n", "s.py"))
    assert 'a: Literal["one"] = Rank.ONE' in rendered
