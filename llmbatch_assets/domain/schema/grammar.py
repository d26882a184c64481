"""The grammar of schema modules. Source is parsed but never run; its syntax tree becomes a specification.

Anything outside the grammar is rejected with its line and construct. Only our own rendering of the specification
(``spec``) is imported, so nothing that a model wrote is ever executed.
"""

from __future__ import annotations

import ast
import re

from llmbatch_assets.domain.schema.class_grammar import ClassReader, Reading
from llmbatch_assets.domain.schema.spec import MODULES, ModelSpec, SchemaSpec, used_names
from llmbatch_assets.domain.schema.type_grammar import PLAIN_TYPES, TypeReader, import_advice, plain_import_advice
from llmbatch_assets.domain.schema.value_grammar import check_depth, construct
from llmbatch_assets.errors import SchemaError

MAX_SOURCE_CHARS = 200_000
MAX_CLASSES = 200
MAX_FIELDS = 2_000
MAX_MISTAKES = 50
MAX_TYPE_STATEMENTS = 100

_TYPE_STATEMENT = re.compile(r"type[ \t]+(\w+)[ \t]*=")
_COOKIE = re.compile(r"[ \t\f]*#.*?coding[:=]")


def schema_mistakes(source: str, path: str) -> list[str]:
    """Return a message for each statement that a schema module may not hold, up to ``MAX_MISTAKES``, by line."""
    found: list[SchemaError] = []
    try:
        _read(source, path, found)
    except SchemaError as mistake:
        found.append(mistake)
    place = re.compile(rf"{re.escape(path)}:(\d+): ")
    lines = {str(one): int(at.group(1)) if (at := place.match(str(one))) else 0 for one in found}
    return sorted(lines, key=lambda told: lines[told])[:MAX_MISTAKES]


def parse_schema(source: str, path: str) -> SchemaSpec:
    """Read a schema module. Raises ``SchemaError`` with the line and the construct that is not allowed."""
    return _read(source, path, None)


def _read(source: str, path: str, mistakes: list[SchemaError] | None) -> SchemaSpec:
    if len(source) > MAX_SOURCE_CHARS:
        raise SchemaError(f"{path}: {len(source)} characters; a schema may have at most {MAX_SOURCE_CHARS}")
    for number, line in enumerate(source.split("\n", 2)[:2], start=1):
        if _COOKIE.match(line):
            advice = (
                "an encoding declaration (coding:) is not allowed in a schema; remove it and save the file as UTF-8"
            )
            raise SchemaError(f"{path}:{number}: {advice}")
    try:
        return _ModuleReader(path, _tree(source), mistakes).module()
    except (SyntaxError, ValueError, MemoryError) as broken:
        place = getattr(broken, "lineno", None)
        where = f"{path}:{place}" if place else path
        raise SchemaError(f"{where}: not Python: {getattr(broken, 'msg', None) or broken}") from None
    except RecursionError:
        raise SchemaError(f"{path}: nested too deeply for a schema; keep it simpler") from None


def _tree(source: str) -> ast.Module:
    """Parse a module, even one with ``type`` statements in a Python version without them."""
    for _ in range(MAX_TYPE_STATEMENTS):
        try:
            return ast.parse(source)
        except SyntaxError as broken:
            lines, number = source.split("\n"), broken.lineno or 0
            if not 0 < number <= len(lines) or not _TYPE_STATEMENT.match(lines[number - 1]):
                raise
            lines[number - 1] = _TYPE_STATEMENT.sub(r"\1 =", lines[number - 1])
            source = "\n".join(lines)
    return ast.parse(source)


class _ModuleReader:
    """Reads the statements of a module and its classes. With ``mistakes``, it collects them there and continues."""

    def __init__(self, path: str, tree: ast.Module, mistakes: list[SchemaError] | None) -> None:
        self.tree = tree
        check_depth(path, tree)
        self.types = TypeReader(path)
        self.refuse = self.types.refuse
        self.reading = Reading(mistakes, self.types.broken)
        self.classes = ClassReader(self.types, self.reading)

    def module(self) -> SchemaSpec:
        text = self.types.docstring(self.tree)
        statements = self.tree.body[0 if text is None else 1 :]
        classes = [node for node in statements if isinstance(node, ast.ClassDef)]
        self._name_classes(classes)
        for node in statements:
            if not isinstance(node, ast.ClassDef):
                self.reading.attempt(self._statement, node)
        for node in classes:
            self.reading.attempt(self.classes.read, node)
        spec = SchemaSpec(text, tuple(self.classes.found))
        if self.reading.mistakes:
            return spec
        if not spec.models:
            raise SchemaError(f"{self.types.path}: no class derives from BaseModel; write at least LLMOutput")
        if sum(len(model.fields) for model in spec.models) > MAX_FIELDS:
            raise SchemaError(f"{self.types.path}: more than {MAX_FIELDS} fields; keep the schema smaller")
        self._check_names(spec, classes)
        return spec

    def _check_names(self, spec: SchemaSpec, classes: list[ast.ClassDef]) -> None:
        """Reject a field that shadows a type name used in the module.

        Pydantic looks types up in the class namespace first. A field named ``str`` with a string as its default would
        replace the type ``str`` of the other fields, and that string would be evaluated.
        """
        used = set(used_names(spec))
        for node, made in zip(classes, spec.classes, strict=True):
            for field in made.fields if isinstance(made, ModelSpec) else ():
                if field.arguments and field.name in used:
                    place = next(part for part in node.body if _declares(part, field.name))
                    advice = f"choose another name, and set Field(alias={field.name!r}) if the answer needs this one"
                    raise self.refuse(place, f"a field named like the type {field.name}", advice)

    def _name_classes(self, classes: list[ast.ClassDef]) -> None:
        if len(classes) > MAX_CLASSES:
            raise self.refuse(classes[MAX_CLASSES], f"class number {MAX_CLASSES + 1}", "write fewer")
        for node in classes:
            self.reading.attempt(self._name_class, node)

    def _name_class(self, node: ast.ClassDef) -> None:
        if node.name in self.types.class_names:
            raise self.refuse(node, f"a second class named {node.name}", "rename one")
        if node.name.startswith("_") or _is_taken(node.name):
            raise self.refuse(node, f"a class named {node.name}", "choose another name")
        self.types.class_names.add(node.name)
        if any(isinstance(base, ast.Name) and base.id.endswith("Enum") for base in node.bases):
            self.types.enums[node.name] = {
                target.id: statement.value
                for statement in node.body
                if isinstance(statement, ast.Assign)
                for target in statement.targets
                if isinstance(target, ast.Name) and not target.id.startswith("_")
            }
        else:
            self.types.model_names.add(node.name)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List() | ast.Tuple() as names)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.List() | ast.Tuple() as names)
            ):
                self.types.value(names)
            case ast.AnnAssign(
                target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias"), value=ast.expr() as value
            ):
                self._name(node, name, value, is_type=True)
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                self._name(node, name, value, is_type=False)
            case ast.Expr(value=ast.Call(ast.Attribute(ast.Name(id=name), "model_rebuild"), args=[], keywords=[])) if (
                name in self.types.class_names
            ):
                return
            case ast.If() | ast.Expr() if _is_main_guard(node) or _is_text(node):
                return
            case _ if type(node).__name__ == "TypeAlias":
                # From Python 3.12 on.
                self._name(node, node.name.id, node.value, is_type=True)  # type: ignore[attr-defined]
            case _:
                raise self.refuse(
                    node, construct(node), "use only imports, literal constants, type aliases and classes"
                )

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            raise self.refuse(node, f"`{ast.unparse(node)}`", plain_import_advice(node))
        module = node.module or ""
        if module == "__future__" and [name.name for name in node.names] == ["annotations"]:
            return
        for name in node.names:
            known = name.name in MODULES.get(module, ()) or (module, name.name) in self.types.REPLACED
            if node.level or not known or name.asname not in (None, name.name):
                written = f"{name.name}{f' as {name.asname}' if name.asname else ''} from {'.' * node.level}{module}"
                raise self.refuse(node, f"importing {written}", import_advice(module, name.name))

    def _name(self, node: ast.stmt, name: str, value: ast.expr, *, is_type: bool) -> None:
        """Define a constant or a type alias."""
        if _is_taken(name) or name in self.types.class_names:
            raise self.refuse(node, f"setting {name}", "choose another name")
        if name in self.types.constants or name in self.types.aliases:
            raise self.refuse(node, f"a second value of {name}", "keep one of them")
        if is_type or self.types.is_type(value):
            self.types.define_alias(value, name)
        else:
            self.types.define(value, name)


def _is_taken(name: str) -> bool:
    known = PLAIN_TYPES.union(*MODULES.values(), (name for _, name in TypeReader.REPLACED))
    return name in known or name.startswith("__")


def _declares(node: ast.stmt, field: str) -> bool:
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == field


def _is_text(node: ast.stmt) -> bool:
    """Return whether a statement is only a text, such as a docstring below an import."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_main_guard(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.If)
        and not node.orelse
        and ast.unparse(node.test) in ("__name__ == '__main__'", "'__main__' == __name__")
    )
