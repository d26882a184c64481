"""Read the classes of a schema module: models and enums."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel

from llmbatch_assets.domain.schema.spec import EnumSpec, FieldSpec, ModelSpec
from llmbatch_assets.domain.schema.type_grammar import TypeReader
from llmbatch_assets.domain.schema.value_grammar import ConsequenceError, construct
from llmbatch_assets.errors import SchemaError

Read = TypeVar("Read")

_ENUM_BASES = {("Enum",), ("str", "Enum"), ("int", "Enum"), ("IntEnum",), ("StrEnum",)}
_ENUM_VALUES = {"IntEnum": int, "int": int, "str": str, "StrEnum": str}
# Settings of a model that need only a literal value.
_CONFIG_KEYS = {
    *("title", "json_schema_extra", "populate_by_name", "validate_by_name", "validate_by_alias", "serialize_by_alias"),
    *("str_strip_whitespace", "str_to_lower", "str_to_upper", "str_min_length", "str_max_length", "use_enum_values"),
    *("frozen", "strict", "validate_default", "validate_assignment", "allow_inf_nan", "protected_namespaces"),
}
_OWN_CODE = "use Field(...) limits, or set llm_schema.trust: true to run your own code"


class Reading:
    """Reads statements one by one. With ``mistakes``, invalid statements are reported there and skipped.

    ``broken`` collects the names that these statements would have defined, since their uses are not mistakes.
    """

    def __init__(self, mistakes: list[SchemaError] | None, broken: set[str]) -> None:
        self.mistakes = mistakes
        self._broken = broken

    def attempt(self, read: Callable[[Any], Read], node: ast.stmt) -> Read | None:
        """Read a statement. Raises its ``SchemaError`` unless mistakes are collected."""
        try:
            return read(node)
        except SchemaError as mistake:
            if self.mistakes is None:
                raise
            if not isinstance(mistake, ConsequenceError):
                self.mistakes.append(mistake)
            self._broken.update(_names_defined_by(node))
            return None


class ClassReader:
    """Reads the classes of one module, in order."""

    def __init__(self, types: TypeReader, reading: Reading) -> None:
        self.types = types
        self.refuse = types.refuse
        # A field of a class is no name of the module.
        self.reading = Reading(reading.mistakes, set())
        self.found: list[ModelSpec | EnumSpec] = []

    def read(self, node: ast.ClassDef) -> None:
        """Add the class to those found so far. Raises ``SchemaError``."""
        bases = tuple(ast.unparse(base) for base in node.bases)
        models = {made.name for made in self.found if isinstance(made, ModelSpec)}
        self._check_head(node)
        if bases in _ENUM_BASES:
            self.found.append(self._enum(node, bases))
        elif bases == ("BaseModel",) or (bases and set(bases) <= models and len(set(bases)) == len(bases)):
            self.found.append(_ModelReader(self).read(node, bases))
        elif set(bases) & self.types.broken:
            raise ConsequenceError(node.name)
        else:
            written = f"({', '.join(bases)})" if bases else ""
            advice = f"write `class {node.name}(BaseModel):`, or name a model above it, or Enum"
            raise self.refuse(node, f"class {node.name}{written}", advice)

    def _check_head(self, node: ast.ClassDef) -> None:
        if node.decorator_list:
            raise self.refuse(node.decorator_list[0], "a decorator", "remove it")
        if node.keywords:
            written = f"{node.keywords[0].arg or '**'}=... of class {node.name}"
            raise self.refuse(node, written, "put settings in model_config = ConfigDict(...)")
        if getattr(node, "type_params", None):
            raise self.refuse(node, f"a type parameter of class {node.name}", "write the concrete type")

    def _enum(self, node: ast.ClassDef, bases: tuple[str, ...]) -> EnumSpec:
        text = self.types.docstring(node)
        members: dict[str, str | int] = {}

        def read(statement: ast.stmt) -> bool:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=given):
                    if name.startswith("_") or name in members or name == "mro":
                        raise self.refuse(statement, f"an enum member named {name}", "choose another name")
                    members[name] = self._member(statement, name, given, bases)
                case ast.Pass():
                    pass
                case _:
                    raise self.refuse(statement, construct(statement), 'write members as `NAME = "value"`')
            return True

        done = [self.reading.attempt(read, statement) for statement in node.body[0 if text is None else 1 :]]
        if not members and all(done):
            raise self.refuse(node, f"an enum without members ({node.name})", 'write members as `NAME = "value"`')
        return EnumSpec(node.name, bases, text, tuple(members.items()))

    def _member(self, node: ast.stmt, name: str, given: ast.expr, bases: tuple[str, ...]) -> str | int:
        value = self.types.value(given)
        if not isinstance(value, _ENUM_VALUES.get(bases[0], object)) or not isinstance(value, str | int):
            raise self.refuse(node, f"the value of {name}", "write a string, or a number in an IntEnum")
        return value


class _ModelReader:
    """Reads the fields and settings of one model."""

    def __init__(self, classes: ClassReader) -> None:
        self.types = classes.types
        self.refuse = classes.refuse
        self.reading = classes.reading
        self.config: tuple[tuple[str, Any], ...] | None = None
        self.fields: dict[str, FieldSpec] = {}
        self.answer_names: set[str] = set()

    def read(self, node: ast.ClassDef, bases: tuple[str, ...]) -> ModelSpec:
        """Return the model. Raises ``SchemaError``."""
        text = self.types.docstring(node)
        for statement in node.body[0 if text is None else 1 :]:
            self.reading.attempt(self._statement, statement)
        return ModelSpec(node.name, bases, text, self.config or (), tuple(self.fields.values()))

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant(value=str())):
                # A string below a field is a comment written as a docstring.
                return
            case (
                ast.Assign(targets=[ast.Name(id="model_config")], value=given)
                | ast.AnnAssign(target=ast.Name(id="model_config"), value=ast.expr() as given)
            ):
                if self.config is not None:
                    raise self.refuse(node, "a second model_config", "keep one of them")
                self.config = self._config(given)
            case ast.AnnAssign(target=ast.Name(id=name)):
                self._add_field(node, name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                raise self.refuse(node, f"a function ({name})", _OWN_CODE)
            case _:
                raise self.refuse(node, construct(node), "write fields as `name: type = Field(...)`")

    def _add_field(self, node: ast.AnnAssign, name: str) -> None:
        if name in self.fields:
            raise self.refuse(node, f"a second field named {name}", "keep one of them")
        field = self._field(node, name)
        key = _answer_name(field)
        if key in self.answer_names:
            raise self.refuse(node, f"a second field with the name or alias {key}", "rename one")
        self.answer_names.add(key)
        self.fields[name] = field

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


def _names_defined_by(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.ImportFrom(names=names):
            yield from (one.asname or one.name for one in names)


def _answer_name(field: FieldSpec) -> str:
    """The key of the field in an answer."""
    given = dict(field.arguments)
    return str(given.get("validation_alias") or given.get("alias") or field.name)
