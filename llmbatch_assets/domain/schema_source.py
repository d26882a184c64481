"""Schema modules as data.

The source is parsed, never run: its syntax tree is read into a specification through a grammar that knows only what
schemas need, and what is imported in the end is our own rendering of that specification.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from llmbatch_assets.errors import SchemaError

IMPORTABLE = {
    "__future__": {"annotations"},
    "pydantic": {"BaseModel", "ConfigDict", "Field"},
    "typing": {"Annotated", "Dict", "List", "Literal", "Optional", "Union"},
}
_PLAIN_TYPES = {"str", "int", "float", "bool", "list", "dict"}
_FIELD_ARGUMENTS = {
    *("default", "default_factory", "title", "description", "examples"),
    *("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern"),
}
_FACTORIES = {"list", "dict"}
HEADER = (
    "from __future__ import annotations\n\n"
    "from typing import Annotated, Dict, List, Literal, Optional, Union\n\n"
    "from pydantic import BaseModel, ConfigDict, Field\n"
)


@dataclass(frozen=True)
class FieldSpec:
    """One field: name, annotation and default, the latter two as canonical source."""

    name: str
    annotation: str
    default: str | None


@dataclass(frozen=True)
class ModelSpec:
    """One ``BaseModel`` class."""

    name: str
    docstring: str | None
    fields: tuple[FieldSpec, ...]


@dataclass(frozen=True)
class SchemaSpec:
    """One schema module."""

    docstring: str | None
    models: tuple[ModelSpec, ...]


def parse_schema(source: str, path: str) -> SchemaSpec:
    """Read a schema module. Raises ``SchemaError`` naming the line and construct that a schema does not need."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as broken:
        line = getattr(broken, "lineno", None)
        raise SchemaError(f"{path}{f':{line}' if line else ''}: not Python: {broken}") from None
    try:
        return _Reader(path, tree).module()
    except RecursionError:
        raise SchemaError(f"{path}: nested too deeply for a schema; write it plainer") from None


def render_schema(spec: SchemaSpec) -> str:
    """The module that is imported in place of what was read."""
    parts = [f"{spec.docstring!r}\n" if spec.docstring else "", HEADER]
    parts += ["\n\n" + "\n".join(_model_lines(model)) + "\n" for model in spec.models]
    names = ", ".join(repr(model.name) for model in spec.models)
    return "".join([*parts, f"\n__all__ = [{names}]\n"])


def _model_lines(model: ModelSpec) -> Iterator[str]:
    yield f"class {model.name}(BaseModel):"
    if model.docstring:
        yield f"    {model.docstring!r}"
    yield '    model_config = ConfigDict(extra="forbid")'
    for field in model.fields:
        yield f"    {field.name}: {field.annotation}" + (f" = {field.default}" if field.default else "")


class _Reader:
    """The grammar, one method per construct."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self.path = path
        self.tree = tree
        self.class_names = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}

    def refuse(self, node: ast.AST, what: str, instead: str) -> SchemaError:
        return SchemaError(f"{self.path}:{getattr(node, 'lineno', 1)}: {what} is not part of a schema; {instead}")

    def module(self) -> SchemaSpec:
        models: list[ModelSpec] = []
        for node in self.tree.body[1 if _docstring(self.tree) is not None else 0 :]:
            if isinstance(node, ast.ClassDef):
                models.append(self.model(node))
            elif isinstance(node, ast.ImportFrom):
                self.check_import(node)
            elif not self.is_all(node):
                raise self.refuse(node, _construct(node), "keep imports and BaseModel classes only")
        if not models:
            raise SchemaError(f"{self.path}: no class derives from BaseModel; write at least LLMOutput")
        names = [model.name for model in models]
        if len(set(names)) != len(names):
            raise SchemaError(f"{self.path}: two classes have the same name; rename one")
        return SchemaSpec(_docstring(self.tree), tuple(models))

    def check_import(self, node: ast.ImportFrom) -> None:
        allowed = IMPORTABLE.get(node.module or "", set()) if not node.level else set()
        for name in node.names:
            if name.name not in allowed or name.asname:
                raise self.refuse(
                    node,
                    f"importing {name.name} from {node.module}",
                    "import BaseModel, ConfigDict, Field from pydantic and types from typing, under their own names",
                )

    def is_all(self, node: ast.stmt) -> bool:
        return (
            isinstance(node, ast.Assign)
            and [ast.dump(target) for target in node.targets] == [ast.dump(ast.Name("__all__", ast.Store()))]
            and isinstance(node.value, ast.List | ast.Tuple)
            and all(isinstance(item, ast.Constant) for item in node.value.elts)
        )

    def model(self, node: ast.ClassDef) -> ModelSpec:
        if [ast.unparse(base) for base in node.bases] != ["BaseModel"] or node.keywords or node.decorator_list:
            raise self.refuse(node, f"class {node.name} as written", f"write `class {node.name}(BaseModel):`")
        if (
            node.name.startswith("_")
            or node.name in _PLAIN_TYPES
            or any(node.name in names for names in IMPORTABLE.values())
        ):
            raise self.refuse(node, f"a class named {node.name}", "choose another name")
        docstring = _docstring(node)
        fields = [
            field
            for statement in node.body[1 if docstring is not None else 0 :]
            if (field := self.statement(statement)) is not None
        ]
        if len({field.name for field in fields}) != len(fields):
            raise self.refuse(node, f"a field written twice in {node.name}", "keep one of them")
        return ModelSpec(node.name, docstring, tuple(fields))

    def statement(self, node: ast.stmt) -> FieldSpec | None:
        if isinstance(node, ast.Pass) or self.is_config(node):
            return None
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            raise self.refuse(node, _construct(node), "write fields as `name: type = Field(...)`")
        name = node.target.id
        if name.startswith(("_", "model_")):
            raise self.refuse(node, f"a field named {name}", "choose a name without the prefix")
        default = None if node.value is None else ast.unparse(self.default(node.value))
        return FieldSpec(name, ast.unparse(self.annotation(node.annotation)), default)

    def is_config(self, node: ast.stmt) -> bool:
        if not isinstance(node, ast.Assign) or [ast.unparse(target) for target in node.targets] != ["model_config"]:
            return False
        if ast.unparse(node.value) not in ("ConfigDict(extra='forbid')", "{'extra': 'forbid'}"):
            raise self.refuse(node, "this model_config", 'write `model_config = ConfigDict(extra="forbid")`')
        return True

    def annotation(self, node: ast.expr) -> ast.expr:
        match node:
            case ast.Constant(value=None):
                return node
            case ast.Constant(value=str(text)) if text in self.class_names:
                return ast.Name(text, ast.Load())
            case ast.Name(id=name) if name in _PLAIN_TYPES or name in self.class_names:
                return node
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return ast.BinOp(self.annotation(left), ast.BitOr(), self.annotation(right))
            case ast.Subscript(value=ast.Name(id=name), slice=inner):
                return ast.Subscript(ast.Name(name, ast.Load()), self.arguments(name, inner, node), ast.Load())
        raise self.refuse(
            node,
            f"the type {ast.unparse(node)[:60]}",
            "use str, int, float, bool, list, dict, Literal, Optional, Union",
        )

    def arguments(self, name: str, inner: ast.expr, node: ast.expr) -> ast.expr:
        items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if name == "Literal":
            vetted = [self.literal(item) for item in items]
        elif name == "Annotated" and len(items) > 1:
            vetted = [self.annotation(items[0]), *(self.field_call(item) for item in items[1:])]
        elif name in {"list", "dict", "List", "Dict", "Optional", "Union"}:
            vetted = [self.annotation(item) for item in items]
        else:
            raise self.refuse(node, f"{name}[...]", "use list, dict, Literal, Optional, Union or Annotated")
        return vetted[0] if len(vetted) == 1 else ast.Tuple(vetted, ast.Load())

    def default(self, node: ast.expr) -> ast.expr:
        return self.field_call(node) if isinstance(node, ast.Call) else self.literal(node)

    def field_call(self, node: ast.expr) -> ast.expr:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field"):
            raise self.refuse(
                node, f"the call or value {ast.unparse(node)[:60]}", "only Field(...) is called in a schema"
            )
        arguments = [a for a in node.args if not (isinstance(a, ast.Constant) and a.value is ...)]
        if len(arguments) > 1:
            raise self.refuse(node, "a second positional argument of Field", "name it")
        keywords = [self.field_keyword(keyword) for keyword in node.keywords]
        if len({keyword.arg for keyword in keywords}) < len(keywords):
            raise self.refuse(node, "an argument of Field given twice", "keep one of them")
        required = [ast.Constant(...)] if len(arguments) < len(node.args) else []
        return ast.Call(node.func, required + [self.literal(argument) for argument in arguments], keywords)

    def field_keyword(self, node: ast.keyword) -> ast.keyword:
        if node.arg not in _FIELD_ARGUMENTS:
            raise self.refuse(
                node.value, f"Field({node.arg or '**'}=...)", f"known: {', '.join(sorted(_FIELD_ARGUMENTS))}"
            )
        if node.arg == "default_factory":
            if not (isinstance(node.value, ast.Name) and node.value.id in _FACTORIES):
                raise self.refuse(node.value, "this default_factory", "use default_factory=list or dict")
            return node
        return ast.keyword(node.arg, self.literal(node.value))

    def literal(self, node: ast.expr) -> ast.expr:
        match node:
            case ast.Constant(value=str() | int() | float() | bool() | None):
                return node
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
                return node
            case ast.List(elts=items):
                return ast.List([self.literal(item) for item in items], ast.Load())
            case ast.Tuple(elts=items):
                return ast.Tuple([self.literal(item) for item in items], ast.Load())
            case ast.Dict(keys=keys, values=values) if all(key is not None for key in keys):
                return ast.Dict([self.literal(key) for key in keys if key], [self.literal(value) for value in values])
        raise self.refuse(
            node, f"the value {ast.unparse(node)[:60]}", "write a literal: text, number, true, false, list"
        )


def _docstring(node: ast.Module | ast.ClassDef) -> str | None:
    # As it stands: cleaning twice gives another text than cleaning once, and pydantic cleans it itself.
    return ast.get_docstring(node, clean=False)


def _construct(node: ast.AST) -> str:
    names = {
        ast.FunctionDef: "a function",
        ast.AsyncFunctionDef: "a function",
        ast.Import: "a plain import",
        ast.Expr: "a bare expression or call",
        ast.Assign: "an assignment",
        ast.If: "an if",
        ast.Try: "a try",
        ast.With: "a with",
        ast.For: "a loop",
        ast.While: "a loop",
    }
    return names.get(type(node), f"{type(node).__name__}")
