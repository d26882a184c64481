"""Schema modules as data: what acts is refused and never acts, what describes comes through unchanged."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import runpy
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from llmbatch_assets.domain.schema_source import (
    IMPORTABLE,
    FieldSpec,
    ModelSpec,
    SchemaSpec,
    parse_schema,
    render_schema,
)
from llmbatch_assets.errors import SchemaError
from llmbatch_assets_tests.domain.strategies import TEXTS, quick

IMPORTS = "from typing import Annotated, Dict, List, Literal, Optional, Union\n\nfrom pydantic import {names}\n\n"
HEAD = IMPORTS.format(names="BaseModel, ConfigDict, Field")
BODY = f"{HEAD}class LLMOutput(BaseModel):\n    name: str = 'x'\n"

# Each of these makes a file when it is imported, or when its model is made. ACT stands for what makes it.
HOSTILE = {
    # Statements of the module.
    "a plain import": BODY + "import os\nos.mkdir(PROOF)",
    "an import of more": BODY + "from os import mkdir\nmkdir(PROOF)",
    "an import under another name": BODY + "from os import mkdir as Field\nField(PROOF)",
    "an import of everything": BODY + "from os import *\nmkdir(PROOF)",
    "a bare call": BODY + "ACT",
    "an assignment": BODY + "x = ACT",
    "an annotated assignment": BODY + "x: str = ACT",
    "an augmented assignment": BODY + "__all__ = []\n__all__ += [ACT]",
    "a call among the exported names": BODY + "__all__ = ['LLMOutput', ACT]",
    "a second target of the exported names": BODY + "__all__ = globals()[ACT.name] = ['LLMOutput']",
    "an if": BODY + "if ACT:\n    pass",
    "a try": BODY + "try:\n    ACT\nfinally:\n    pass",
    "a with": BODY + "with ACT:\n    pass",
    "a loop": BODY + "for _ in [ACT]:\n    pass",
    "a while": BODY + "while not ACT:\n    pass",
    "an assert": BODY + "assert ACT",
    "a raise": BODY + "raise ValueError(ACT)",
    "a delete": BODY + "del {0: 1}[ACT and 0]",
    "a match": BODY + "match ACT:\n    case _:\n        pass",
    "a function with a default": BODY + "def f(x=ACT):\n    pass",
    "a decorated function": BODY + "@(lambda f: ACT)\ndef f():\n    pass",
    "an async function": BODY + "async def f(x=ACT):\n    pass",
    "a docstring that is a format": 'f"""{ACT}"""\n' + BODY,
    "two statements on a line": BODY.rstrip() + "; ACT\n",
    # Class statements.
    "a decorator": HEAD + "@(lambda c: ACT and c)\nclass LLMOutput(BaseModel):\n    name: str = 'x'",
    "a metaclass": HEAD + "class LLMOutput(BaseModel, metaclass=ACT and type(BaseModel)):\n    name: str = 'x'",
    "a class keyword": HEAD + "class LLMOutput(BaseModel, title=str(ACT)):\n    name: str = 'x'",
    "class keywords from a mapping": HEAD + "class LLMOutput(BaseModel, **{'title': str(ACT)}):\n    name: str = 'x'",
    "a computed base": HEAD + "class LLMOutput((ACT, BaseModel)[1]):\n    name: str = 'x'",
    "starred bases": HEAD + "class LLMOutput(*[ACT and BaseModel]):\n    name: str = 'x'",
    "another class": BODY + "class Other:\n    x = ACT",
    # Statements of a class.
    "a bare call in a class": BODY + "    ACT",
    "an assignment in a class": BODY + "    x = ACT",
    "an if in a class": BODY + "    if ACT:\n        pass",
    "an import in a class": BODY + "    import os; os.mkdir(PROOF)",
    "a method with a default": BODY + "    def f(self, x=ACT):\n        pass",
    "a hook of Python": BODY + "    def __init__(self, **values):\n        ACT",
    "a hook of pydantic": BODY + "    @classmethod\n    def __get_pydantic_core_schema__(cls, *a):\n        ACT",
    "a lambda for a hook": BODY + "    __init__ = lambda self: ACT",
    "a class in a class": BODY + "    class Inner:\n        x = ACT",
    "a dunder field": BODY + "    __slots__: str = ACT",
    "a private field": BODY + "    _x: str = ACT",
    "a config with more in it": BODY + "    model_config = ConfigDict(extra='forbid', title=str(ACT))",
    "a config that is computed": BODY + "    model_config = ACT and ConfigDict(extra='forbid')",
    "an annotated config": BODY + "    model_config: ConfigDict = ACT",
    "two targets of the config": BODY + "    model_config = x = ACT and ConfigDict(extra='forbid')",
    # Types.
    "a call for a type": BODY + "    a: ACT",
    "a text for a type": BODY + "    a: \"ACT and str\" = 'x'",
    "a text inside a type": BODY + '    a: List["ACT and str"] = []',
    "a call inside a type": BODY + "    a: list[ACT] = []",
    "a call inside a literal": BODY + "    a: Literal[ACT and 'x'] = 'x'",
    "a call inside an annotation": BODY + "    a: Annotated[str, ACT] = 'x'",
    "a call beside a field": BODY + "    a: Annotated[str, Field(), ACT] = 'x'",
    "a subscript of a call": BODY + "    a: (ACT and list)[str] = []",
    "a choice of types": BODY + "    a: (str if ACT else int) = 'x'",
    "a union with a call": BODY + "    a: str | (ACT and int) = 'x'",
    "a starred type": BODY + "    a: tuple[*[ACT and str]] = ()",
    "a walrus in a type": BODY + "    a: (y := ACT and str) = 'x'",
    "a lambda in a type": BODY + "    a: (lambda: ACT and str)() = 'x'",
    # Defaults.
    "a call for a default": BODY + "    a: str = ACT",
    "a call of another function": BODY + "    a: str = str(ACT)",
    "a method of a text": BODY + "    a: str = 'x'.join([str(ACT)])",
    "a format": BODY + '    a: str = f"{ACT}"',
    "a comprehension": BODY + "    a: list = [ACT for _ in 'x']",
    "a generator": BODY + "    a: list = list(ACT for _ in 'x')",
    "a walrus": BODY + "    a: str = (y := ACT)",
    "a condition": BODY + "    a: str = 'x' if ACT else 'y'",
    "an operator": BODY + "    a: str = ACT and 'x'",
    "a comparison": BODY + "    a: bool = ACT == 1",
    "a sum": BODY + "    a: str = 'x' + str(ACT)",
    "a subscript": BODY + "    a: str = [ACT][0]",
    "an attribute": BODY + "    a: str = ACT.name",
    "an unpacked mapping": BODY + "    a: dict = {**{str(ACT): 1}}",
    "an unpacked list": BODY + "    a: list = [*[ACT]]",
    "a call inside a list": BODY + "    a: list = [1, [ACT]]",
    "a call for a key": BODY + "    a: dict = {str(ACT): 1}",
    "a call for a sign": BODY + "    a: int = -ACT.fileno()",
    # Arguments of Field.
    "a call for an argument": BODY + "    a: str = Field('x', title=str(ACT))",
    "a positional call": BODY + "    a: str = Field(str(ACT))",
    "starred arguments": BODY + "    a: str = Field(*[str(ACT)])",
    "starred keywords": BODY + "    a: str = Field(**{'default': str(ACT)})",
    "a lambda for a factory": BODY + "    a: str = Field(default_factory=lambda: str(ACT))",
    "a comprehension for a factory": BODY + "    a: str = Field(default_factory=[lambda: str(ACT) for _ in 'x'][0])",
    "an attribute for a factory": BODY + "    a: str = Field(default_factory=__import__('os').getcwd if ACT else str)",
    "a keyword that pydantic calls": BODY + "    a: str = Field('x', json_schema_extra=lambda s: ACT, title=str(ACT))",
    "a default for a validator": BODY + "    a: str = Field('x', validation_alias=str(ACT))",
    "Field by another way": BODY + "    a: str = __import__('pydantic').Field(str(ACT))",
    "a call of a call": BODY + "    a: str = Field(ACT and 'x')",
}


def hostile(source: str, proof: Path) -> str:
    """The source, set to make that file."""
    return source.replace("ACT", "__import__('pathlib').Path(PROOF).write_text('x')").replace("PROOF", repr(str(proof)))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_module_that_acts_is_refused_and_does_not_act(name: str, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    with pytest.raises(SchemaError, match=r"s\.py:\d+: .* is not part of a schema; "):
        parse_schema(hostile(HOSTILE[name], proof), "s.py")
    assert not proof.exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HOSTILE)
def test_each_of_these_modules_would_act_if_it_were_imported(name: str, tmp_path: Path) -> None:
    proof, module = tmp_path / "proof", tmp_path / "module.py"
    module.write_text(hostile(HOSTILE[name], proof))
    with contextlib.suppress(Exception):
        runpy.run_path(str(module))["LLMOutput"]()
    assert proof.exists()


def test_a_coding_cookie_does_not_turn_a_comment_into_a_statement(tmp_path: Path) -> None:
    proof, module = tmp_path / "proof", tmp_path / "module.py"
    source = f"# -*- coding: utf-7 -*-\n{BODY}# +AAo-import os+AAo-os.mkdir({str(proof)!r})\n"
    module.write_text(source)
    rendering = render_schema(parse_schema(source, "s.py"))
    exec(rendering, {"__name__": "rendering"})  # noqa: S102  # its harmlessness is what is shown
    assert not proof.exists()
    assert "mkdir" not in rendering
    runpy.run_path(str(module))
    assert proof.exists()


@pytest.mark.parametrize(
    "source",
    [
        # Names that would change what the rendering's own words mean.
        *(f"{HEAD}class {name}(BaseModel):\n    x: str\n" for name in sorted(IMPORTABLE["pydantic"])),
        *(f"{HEAD}class {name}(BaseModel):\n    x: str\n" for name in ("str", "list", "Literal", "annotations", "_X")),
        *(f"{BODY}    {name}: str = 'x'\n" for name in ("model_config", "model_dump", "_x", "__class__")),
        # The same name twice: one of them would be lost.
        f"{BODY}\nclass LLMOutput(BaseModel):\n    other: int\n",
        f"{BODY}    name: int = 1\n",
        f"{BODY}    a: str = Field('x', title='a', title='b')\n",
        # Types that a JSON schema of ours does not need.
        *(f"{BODY}    a: {kind}\n" for kind in ("object", "bytes", "Any", "type", "complex", "LLMOutputs", "...")),
        *(f"{BODY}    a: {kind}[str]\n" for kind in ("set", "tuple", "type", "Callable", "typing.List", "Annotated")),
        # Values that are no JSON.
        *(
            f"{BODY}    a: str = {value}\n"
            for value in ("b'x'", "{**{}}", "1j", "...", "name", "{1, 2}", "+1", "not 1", "--1")
        ),
        # Arguments that are not about the contract.
        *(f"{BODY}    a: str = Field('x', {name}='y')\n" for name in ("alias", "exclude", "frozen", "init")),
        f"{BODY}    a: str = Field('x', 'y')\n",
        f"{BODY}    a: str = Field(default_factory=str)\n",
        f"{BODY}    a: str = Field(default_factory='x')\n",
        # Bases and imports that are not the ones we know.
        HEAD + "class LLMOutput:\n    x: str\n",
        HEAD + "class LLMOutput(pydantic.BaseModel):\n    x: str\n",
        HEAD + "class A(BaseModel):\n    x: str\nclass LLMOutput(A):\n    y: str\n",
        "from .pydantic import BaseModel\n" + BODY,
        "from pydantic import create_model\n" + BODY,
        "from pydantic import BaseModel as B\n" + BODY,
        "import typing\n" + BODY,
        BODY + "    model_config = ConfigDict(extra='allow')\n",
        # No schema at all.
        "",
        HEAD,
        "class LLMOutput(BaseModel)\n    x: str\n",
        "\0",
        "Sure! Here is the schema:\n" + BODY,
    ],
)
def test_what_a_schema_does_not_need_is_refused_in_one_sentence(source: str) -> None:
    with pytest.raises(SchemaError, match=r"\As\.py") as refused:
        parse_schema(source, "s.py")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "value",
    [
        "a: str" + " | str" * 950,
        "a: str" + " | str" * 50_000,
        "a: x" + ".y" * 950,
        "a: int = f" + "()" * 950,
        "a: list = " + "[" * 250 + "]" * 250,
        "a: int = " + "-" * 950 + "1",
        "a: str = 'x'" + " + 'x'" * 950,
    ],
    ids=lambda value: f"{value[:12]}...{len(value)}",
)
def test_a_model_that_wrote_without_end_gets_an_answer(value: str) -> None:
    with pytest.raises(SchemaError):
        parse_schema(f"{BODY}    {value}\n", "s.py")


def test_a_refusal_names_the_line() -> None:
    with pytest.raises(SchemaError, match=r"\Aschema/x\.py:3: "):
        parse_schema("class A(BaseModel):\n    x: str\n    y: bytes\n", "schema/x.py")


LEGITIMATE = {
    "plain types": "class LLMOutput(BaseModel):\n    C\n    a: str\n    b: int\n    c: float\n    d: bool\n    e: list\n    f: dict",
    "types in types": (
        "class LLMOutput(BaseModel):\n    C\n    a: list[str]\n    b: Dict[str, List[int]]\n    c: Optional[str]\n"
        "    d: Union[int, str, None] = None\n    e: int | None = None\n    f: list[dict[str, float | None]]"
    ),
    "choices": (
        "class LLMOutput(BaseModel):\n    C\n    a: Literal['x', \"y'\"]\n    b: Literal[1, -2, True, None]\n"
        "    c: Literal['only',] = 'only'\n    d: Optional[Literal['x']] = None"
    ),
    "fields": (
        "class LLMOutput(BaseModel):\n    C\n    a: str = Field(..., description='An \\'a\\'.\\nTwo lines {x}', max_length=9)\n"
        "    b: int = Field(ge=0, le=100, multiple_of=5)\n    c: float = Field(0.5, gt=-1, lt=1.5, title='C')\n"
        "    d: list[str] = Field(default_factory=list, min_length=0, examples=[['x'], []])\n"
        "    e: str = Field(default='ü', pattern=r'^\\w+$')\n    f: dict[str, int] = Field(default_factory=dict)\n"
        "    g: Annotated[str, Field(min_length=1)]\n    h: list[Annotated[int, Field(ge=1)]] = [1, 2]\n"
        "    i: float = 1e3\n    j: dict = {'a': [1, {'b': None}]}\n    k: int = -3"
    ),
    "classes that refer to each other": (
        "class LLMOutput(BaseModel):\n    C\n    first: 'Step'\n    rest: list['Step'] = Field(default_factory=list)\n\n"
        "class Step(BaseModel):\n    C\n    title: str\n    next: Optional['Step'] = None\n    more: 'Step | None' = None"
    ).replace("'Step | None'", "Optional['Step']"),
    "docstrings": (
        'class LLMOutput(BaseModel):\n    """An answer.\n\n    In two paragraphs, with "quotes" and a \\\\.\n    """\n    C\n    a: str'
    ),
    # Both the first and the last clean-up must leave the list as it was written.
    "docstrings with an indented list": (
        'class LLMOutput(BaseModel):\n    """\n    Levels:\n      - one\n      - two\n    """\n    C\n    a: str'
    ),
    "names of other scripts": "class LLMOutput(BaseModel):\n    C\n    größe: str = Field('', description='名前')\n    名前: int",
    "the config as a mapping": "class LLMOutput(BaseModel):\n    model_config = {'extra': 'forbid'}\n    a: str",
    "only a docstring": 'class LLMOutput(BaseModel):\n    """Nothing."""\n    C\n    pass',
    "a judge beside it": (
        "class LLMOutput(BaseModel):\n    C\n    a: str\n\nclass JudgeResult(BaseModel):\n    C\n    reasons: list[str]\n"
        "    score: int = Field(..., ge=0, le=100)\n    verdict: Literal['PASS', 'FAIL']\n\n__all__ = ['LLMOutput', 'JudgeResult']"
    ),
}


def legitimate(name: str) -> str:
    """The source of a legitimate module."""
    return f'"""A module."""\n\n{HEAD}{LEGITIMATE[name]}\n'.replace(
        "    C\n", "    model_config = ConfigDict(extra='forbid')\n"
    )


def imported(path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module as Python imports it."""
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


def json_schemas(module: types.ModuleType) -> dict[str, str]:
    """What each model of a module asks, as text, since models read the order of fields too."""
    found = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    models = {name: value for name, value in found.items() if issubclass(value, BaseModel) and value is not BaseModel}
    return {name: json.dumps(model.model_json_schema()) for name, model in models.items()}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_the_rendering_asks_what_the_module_asks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = legitimate(name)
    rendering = render_schema(parse_schema(source, "s.py"))
    honest = json_schemas(imported(tmp_path / "honest_schema.py", source, monkeypatch))
    ours = json_schemas(imported(tmp_path / "our_schema.py", rendering, monkeypatch))
    assert ours == honest


@pytest.mark.parametrize("name", LEGITIMATE)
def test_a_rendering_reads_back_as_what_was_rendered(name: str) -> None:
    spec = parse_schema(legitimate(name), "s.py")
    rendering = render_schema(spec)
    again = parse_schema(rendering, "s.py")
    assert again == spec
    assert render_schema(again) == rendering


def test_a_class_that_does_not_forbid_other_fields_is_made_to() -> None:
    rendering = render_schema(parse_schema(HEAD + "class LLMOutput(BaseModel):\n    a: str\n", "s.py"))
    assert 'model_config = ConfigDict(extra="forbid")' in rendering


def test_what_was_not_read_is_not_rendered() -> None:
    source = legitimate("a judge beside it") + "# a comment: import os\n"
    rendering = render_schema(parse_schema(source, "s.py"))
    tree = ast.parse(rendering)
    assert "comment" not in rendering
    assert {type(node) for node in tree.body} <= {ast.Expr, ast.ImportFrom, ast.ClassDef, ast.Assign}
    assert {node.module for node in tree.body if isinstance(node, ast.ImportFrom)} == set(IMPORTABLE)


NAMES = st.sampled_from(["a", "b", "c", "größe", "x1", "title", "default", "Field_"])
LITERALS = st.one_of(TEXTS, st.integers(-99, 99), st.booleans(), st.floats(0, 9, allow_nan=False)).map(repr)
TYPES = st.recursive(
    st.one_of(
        st.sampled_from(["str", "int", "float", "bool", "dict", "list"]),
        st.lists(TEXTS, min_size=1, max_size=3).map(lambda words: f"Literal[{', '.join(map(repr, words))}]"),
    ),
    lambda inner: st.one_of(
        inner.map("list[{}]".format),
        inner.map("Optional[{}]".format),
        inner.map("dict[str, {}]".format),
        inner.map("{} | None".format),
        st.tuples(inner, inner).map(lambda pair: f"Union[{pair[0]}, {pair[1]}]"),
        st.tuples(inner, LITERALS).map(lambda pair: f"Annotated[{pair[0]}, Field(description={pair[1]})]"),
    ),
    max_leaves=4,
)
DEFAULTS = st.one_of(
    st.none(),
    LITERALS,
    st.tuples(LITERALS, LITERALS).map(lambda pair: f"Field({pair[0]}, description={pair[1]})"),
    LITERALS.map(lambda word: f"Field(..., title={word})"),
    st.just("Field(default_factory=list)"),
)


def canonical(source: str | None) -> str | None:
    """An expression as the standard library writes it."""
    return None if source is None else ast.unparse(ast.parse(source, mode="eval"))


FIELDS = st.builds(FieldSpec, NAMES, TYPES.map(canonical), DEFAULTS.map(canonical))
DOCSTRINGS = st.none() | st.text("abc \"'\\{}é", min_size=1).map(str.strip).filter(bool)
MODELS = st.builds(
    ModelSpec,
    st.sampled_from(["LLMOutput", "Step", "JudgeResult"]),
    DOCSTRINGS,
    st.lists(FIELDS, max_size=4, unique_by=lambda field: field.name).map(tuple),
)


@quick
@given(
    st.builds(SchemaSpec, DOCSTRINGS, st.lists(MODELS, min_size=1, max_size=3, unique_by=lambda m: m.name).map(tuple))
)
def test_any_specification_survives_its_own_rendering(spec: SchemaSpec) -> None:
    assert parse_schema(render_schema(spec), "s.py") == spec
