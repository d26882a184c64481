"""Rendering of a specification: formatted, the same bytes every time, and no string escapes its quotes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.schema.grammar import parse_schema
from llmbatch_assets.domain.schema.spec import (
    MAX_LINE_CHARS,
    FieldSpec,
    ModelSpec,
    Name,
    Parametrized,
    SchemaSpec,
    render_schema,
    used_names,
)
from llmbatch_assets_tests.domain.strategies import quick
from llmbatch_assets_tests.schema_corpus import LEGITIMATE

# Strings that look like code.
PIECES = ('"""', "'''", '"', "'", "\\", "\n", "\r", "\t", "\0", "\u2028", "{x}", "#", "\\N{DIGIT ONE}", "ü", "🙂", ")")
TEXTS = st.lists(st.sampled_from([*PIECES, "open('x')"]) | st.characters(exclude_categories=["Cs"]), max_size=8).map(
    "".join
)
# Where ruff prefers other quotes, or brackets around a text that is too long for its line.
OTHERWISE = {"aliases", "docstrings", "long_texts", "numbers", "texts_that_look_like_code"}


def module_of(*fields: FieldSpec, docstring: str | None = None) -> SchemaSpec:
    return SchemaSpec(docstring, (ModelSpec("LLMOutput", ("BaseModel",), docstring, (), fields),))


@quick
@given(TEXTS, TEXTS, TEXTS)
def test_a_string_stays_a_string_wherever_it_is_rendered(docstring: str, default: str, described: str) -> None:
    arguments = (("default", default), ("description", described), ("examples", [described]), ("alias", default))
    literal = Parametrized("Literal", (default, described) if default != described else (default,))
    spec = module_of(FieldSpec("a", Name("str"), arguments), FieldSpec("b", literal), docstring=docstring)

    rendering = render_schema(spec)

    tree = ast.parse(rendering)
    assert {type(node) for node in tree.body} <= {ast.Expr, ast.ImportFrom, ast.ClassDef, ast.Assign}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert {ast.unparse(call.func) for call in calls} == {"ConfigDict", "Field"}
    assert parse_schema(rendering, "s.py") == spec


def test_a_rendering_imports_what_it_uses_and_nothing_else() -> None:
    for module in LEGITIMATE:
        spec = parse_schema(module.source.decode().removeprefix("\ufeff"), "s.py")
        tree = ast.parse(render_schema(spec))
        imported = {name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
        defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        plain = {"str", "int", "float", "bool", "list", "dict", "set", "frozenset", "tuple", "None", "|"}
        assert imported - {"annotations"} == set(used_names(spec)) - defined - plain, module


def test_a_rendering_is_formatted(tmp_path: Path) -> None:
    for module in LEGITIMATE:
        if module.name not in OTHERWISE:
            spec = parse_schema(module.source.decode().removeprefix("\ufeff"), "s.py")
            (tmp_path / f"{module.name}.py").write_text(render_schema(spec), encoding="utf-8")
    for command in (["format", "--diff"], ["check", "--select", "E,F,I,W"]):
        options = [*command, "--isolated", "--no-cache", "--line-length", str(MAX_LINE_CHARS), str(tmp_path)]
        found = subprocess.run([sys.executable, "-m", "ruff", *options], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr


def test_a_field_that_is_too_wide_has_a_line_for_each_argument() -> None:
    arguments = (("description", "x" * 60), ("min_length", 1), ("max_length", 2), ("title", "y" * 30))
    lines = render_schema(module_of(FieldSpec("a", Name("str"), arguments))).splitlines()
    start = lines.index("    a: str = Field(")
    assert lines[start + 1 : start + 6] == [
        "        ...,",
        f'        description="{"x" * 60}",',
        "        min_length=1,",
        "        max_length=2,",
        f'        title="{"y" * 30}",',
    ]
    assert lines[start + 6] == "    )"


def test_a_small_module_reads_like_one_written_by_hand() -> None:
    spec = module_of(
        FieldSpec("name", Name("str"), (("max_length", 9),)),
        FieldSpec("note", Parametrized("|", (Name("str"), Name("None"))), (("default", None),)),
        docstring="An answer.",
    )
    assert (
        render_schema(spec)
        == '''"""An answer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LLMOutput(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(..., max_length=9)
    note: str | None = None


__all__ = ["LLMOutput"]
'''
    )
