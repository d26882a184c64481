"""The grammar of schema modules. Source is parsed but never run; its syntax tree becomes a specification.

Anything outside the grammar is rejected with its line and construct. Only our own rendering of the specification
(``spec``) is imported, so nothing that a model wrote is ever executed.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from pydantic import BaseModel

from llmbatch_assets.domain.schema.spec import MODULES, EnumSpec, FieldSpec, ModelSpec, SchemaSpec, used_names
from llmbatch_assets.domain.schema.type_grammar import PLAIN_TYPES, TypeReader, import_advice
from llmbatch_assets.domain.schema.value_grammar import check_depth, construct
from llmbatch_assets.errors import SchemaError

MAX_SOURCE_CHARS = 200_000
MAX_CLASSES = 200
MAX_FIELDS = 2_000

_ENUM_BASES = {("Enum",), ("str", "Enum"), ("int", "Enum"), ("IntEnum",), ("StrEnum",)}
_COOKIE = re.compile(r"[ \t\f]*#.*?coding[:=]")

# Settings of a model that need only a literal value.
_CONFIG_KEYS = {
    *("title", "json_schema_extra", "populate_by_name", "validate_by_name", "validate_by_alias", "serialize_by_alias"),
    *("str_strip_whitespace", "str_to_lower", "str_to_upper", "str_min_length", "str_max_length", "use_enum_values"),
    *("frozen", "strict", "validate_default", "validate_assignment", "allow_inf_nan", "protected_namespaces"),
}


def parse_schema(source: str, path: str) -> SchemaSpec:
    """Read a schema module. Raises ``SchemaError`` with the line and the construct that is not allowed."""
    if len(source) > MAX_SOURCE_CHARS:
        raise SchemaError(f"{path}: {len(source)} characters; a schema may have at most {MAX_SOURCE_CHARS}")
    for number, line in enumerate(source.split("\n", 2)[:2], start=1):
        if _COOKIE.match(line):
            advice = (
                "an encoding declaration (coding:) is not allowed in a schema; remove it and save the file as UTF-8"
            )
            raise SchemaError(f"{path}:{number}: {advice}")
    try:
        tree = ast.parse(source)
        return _ModuleReader(path, tree).module()
    except (SyntaxError, ValueError, MemoryError) as broken:
        place = getattr(broken, "lineno", None)
        where = f"{path}:{place}" if place else path
        raise SchemaError(f"{where}: not Python: {getattr(broken, 'msg', None) or broken}") from None
    except RecursionError:
        raise SchemaError(f"{path}: nested too deeply for a schema; keep it simpler") from None


class _ModuleReader:
    """Reads the statements of a module and its classes."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self.tree = tree
        check_depth(path, tree)
        self.types = TypeReader(path)
        self.refuse = self.types.refuse
        self.found: list[ModelSpec | EnumSpec] = []

    def module(self) -> SchemaSpec:
        text = self.types.docstring(self.tree)
        statements = self.tree.body[0 if text is None else 1 :]
        classes = [node for node in statements if isinstance(node, ast.ClassDef)]
        self._name_classes(classes)
        for node in statements:
            if not isinstance(node, ast.ClassDef):
                self._statement(node)
        for node in classes:
            self.found.append(self._class(node))
        spec = SchemaSpec(text, tuple(self.found))
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
            if node.name in self.types.class_names:
                raise self.refuse(node, f"a second class named {node.name}", "rename one")
            if node.name.startswith("_") or _is_taken(node.name):
                raise self.refuse(node, f"a class named {node.name}", "choose another name")
            self.types.class_names.add(node.name)
            if not any(isinstance(base, ast.Name) and base.id.endswith("Enum") for base in node.bases):
                self.types.model_names.add(node.name)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.ImportFrom():
                self._import(node)
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List() | ast.Tuple() as names)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.List() | ast.Tuple() as names)
            ):
                self.types.value(names)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                self._constant(node, name)
            case ast.Expr(value=ast.Call(ast.Attribute(ast.Name(id=name), "model_rebuild"), args=[], keywords=[])) if (
                name in self.types.class_names
            ):
                return
            case ast.If() if _is_main_guard(node):
                return
            case _:
                raise self.refuse(node, construct(node), "keep imports, literal constants and classes only")

    def _import(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if module == "__future__" and [name.name for name in node.names] == ["annotations"]:
            return
        for name in node.names:
            known = name.name in MODULES.get(module, ()) or (module, name.name) in self.types.REPLACED
            if node.level or not known or name.asname not in (None, name.name):
                written = f"{name.name}{f' as {name.asname}' if name.asname else ''} from {'.' * node.level}{module}"
                raise self.refuse(node, f"importing {written}", import_advice(module, name.name))

    def _constant(self, node: ast.Assign | ast.AnnAssign, name: str) -> None:
        assert node.value is not None
        if _is_taken(name) or name in self.types.class_names:
            raise self.refuse(node, f"setting {name}", "choose another name")
        if name in self.types.constants:
            raise self.refuse(node, f"a second value of {name}", "keep one of them")
        self.types.define(node.value, name)

    def _class(self, node: ast.ClassDef) -> ModelSpec | EnumSpec:
        bases = tuple(ast.unparse(base) for base in node.bases)
        models = {made.name for made in self.found if isinstance(made, ModelSpec)}
        if node.decorator_list:
            raise self.refuse(node.decorator_list[0], "a decorator", "remove it")
        if node.keywords:
            written = f"{node.keywords[0].arg or '**'}=... of class {node.name}"
            raise self.refuse(node, written, "settings go into model_config = ConfigDict(...)")
        if getattr(node, "type_params", None):
            raise self.refuse(node, f"a type parameter of class {node.name}", "write the concrete type")
        if bases in _ENUM_BASES:
            return self._enum(node, bases)
        if bases == ("BaseModel",) or (bases and set(bases) <= models and len(set(bases)) == len(bases)):
            return self._model(node, bases)
        raise self.refuse(
            node,
            f"class {node.name}({', '.join(bases)})",
            f"write `class {node.name}(BaseModel):`, or name a model above it, or Enum",
        )

    def _enum(self, node: ast.ClassDef, bases: tuple[str, ...]) -> EnumSpec:
        text = self.types.docstring(node)
        members: dict[str, str | int] = {}
        for statement in node.body[0 if text is None else 1 :]:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=given):
                    value = self.types.value(given)
                    if name.startswith("_") or name in members or name == "mro":
                        raise self.refuse(statement, f"an enum member named {name}", "choose another name")
                    kinds = {"IntEnum": int, "int": int, "str": str, "StrEnum": str}
                    if not isinstance(value, kinds.get(bases[0], object)) or not isinstance(value, str | int):
                        raise self.refuse(
                            statement, f"the value of {name}", "write a string, or a number in an IntEnum"
                        )
                    members[name] = value
                case ast.Pass():
                    continue
                case _:
                    raise self.refuse(statement, construct(statement), 'write members as `NAME = "value"`')
        if not members:
            raise self.refuse(node, f"an enum without members ({node.name})", 'write members as `NAME = "value"`')
        return EnumSpec(node.name, bases, text, tuple(members.items()))

    def _model(self, node: ast.ClassDef, bases: tuple[str, ...]) -> ModelSpec:
        text = self.types.docstring(node)
        config: tuple[tuple[str, Any], ...] | None = None
        fields: dict[str, FieldSpec] = {}
        answer_names: set[str] = set()
        for statement in node.body[0 if text is None else 1 :]:
            match statement:
                case ast.Pass() | ast.Expr(value=ast.Constant(value=str())):
                    # A string below a field is a comment written as a docstring.
                    continue
                case (
                    ast.Assign(targets=[ast.Name(id="model_config")], value=given)
                    | ast.AnnAssign(target=ast.Name(id="model_config"), value=ast.expr() as given)
                ):
                    if config is not None:
                        raise self.refuse(statement, "a second model_config", "keep one of them")
                    config = self._config(given)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    if name in fields:
                        raise self.refuse(statement, f"a second field named {name}", "keep one of them")
                    fields[name] = self._field(statement, name)
                    key = _answer_name(fields[name])
                    if key in answer_names:
                        raise self.refuse(statement, f"a second field with the name or alias {key}", "rename one")
                    answer_names.add(key)
                case _:
                    raise self.refuse(statement, construct(statement), "write fields as `name: type = Field(...)`")
        return ModelSpec(node.name, bases, text, config or (), tuple(fields.values()))

    def _field(self, node: ast.AnnAssign, name: str) -> FieldSpec:
        if name.startswith("_") or (name.startswith("model_") and hasattr(BaseModel, name)):
            raise self.refuse(node, f"a field named {name}", "choose another name")
        kind, arguments = self.types.type(node.annotation), self.types.field_arguments(node.value)
        self.types.check_limits(node.annotation, kind, dict(arguments))
        return FieldSpec(name, kind, arguments)

    def _config(self, node: ast.expr) -> tuple[tuple[str, Any], ...]:
        settings = self.types.settings(node, "ConfigDict")
        for key, value in settings.items():
            if key not in _CONFIG_KEYS | {"extra"}:
                known = ", ".join(sorted(_CONFIG_KEYS))
                raise self.refuse(node, f"the setting {key} of model_config", f"known: extra, {known}")
            if (key, value) in (("extra", "allow"), ("extra", "ignore"), ("strict", False)):
                raise self.refuse(node, f"{key}={value!r}", 'write `model_config = ConfigDict(extra="forbid")`')
            if key == "json_schema_extra":
                self.types.check_extra(node, value)
        return tuple((key, value) for key, value in settings.items() if key != "extra")


def _answer_name(field: FieldSpec) -> str:
    """The key of the field in an answer."""
    given = dict(field.arguments)
    return str(given.get("validation_alias") or given.get("alias") or field.name)


def _is_taken(name: str) -> bool:
    known = PLAIN_TYPES.union(*MODULES.values(), (name for _, name in TypeReader.REPLACED))
    return name in known or name.startswith("__")


def _declares(node: ast.stmt, field: str) -> bool:
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == field


def _is_main_guard(node: ast.If) -> bool:
    return not node.orelse and ast.unparse(node.test) in ("__name__ == '__main__'", "'__main__' == __name__")
