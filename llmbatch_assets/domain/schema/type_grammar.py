"""Read the types of a schema module."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, ClassVar

from llmbatch_assets.domain.schema.spec import MODULES, Call, Member, Name, Parametrized, Type
from llmbatch_assets.domain.schema.value_grammar import (
    MAX_DEPTH,
    NUMBER_LIMITS,
    TEXT_LIMITS,
    ConsequenceError,
    ValueReader,
    check_depth,
    construct,
    shown,
)

MAX_PARTS = 1_000

PLAIN_TYPES = {"str", "int", "float", "bool", "list", "dict", "set", "frozenset", "tuple"}
_NO_TYPES = {"BaseModel", "ConfigDict", "Field", "StringConstraints", "Annotated", "Literal"}
_IMPORTED_TYPES = {
    name for module, names in MODULES.items() if module != "enum" for name in names if name not in _NO_TYPES
}
_GENERICS = {"list": 1, "dict": 2, "set": 1, "frozenset": 1}
_OLD_NAMES = {"List": "list", "Dict": "dict", "Set": "set", "FrozenSet": "frozenset", "Tuple": "tuple"}

# Pydantic's constrained types (constr, conlist, ...), with the type that each one limits.
_CONSTRAINED = {"constr": "str", "conint": "int", "confloat": "float", "condecimal": "Decimal"}
_CONSTRAINED |= {"conlist": "list", "conset": "set", "confrozenset": "frozenset"}
_SIZES = {"min_length", "max_length"}
_ALL_LIMITS = {*NUMBER_LIMITS, *TEXT_LIMITS} - {"strict"}
_PAIRS = (("ge", "le"), ("ge", "lt"), ("gt", "le"), ("gt", "lt"), ("min_length", "max_length"))
# The limits that a type supports. For types that are not listed, pydantic decides.
_KNOWN_LIMITS: Mapping[str, set[str]] = {
    "str": TEXT_LIMITS,
    "int": {"gt", "ge", "lt", "le", "multiple_of"},
    "float": {"gt", "ge", "lt", "le", "multiple_of", "allow_inf_nan"},
    "Decimal": NUMBER_LIMITS,
    **dict.fromkeys(("list", "dict", "set", "frozenset", "tuple"), _SIZES),
    **{name: set() for name in ("bool", "Literal", "UUID", "None")},
}


class TypeReader(ValueReader):
    """Reads the types of one module; knows its classes."""

    # Names that a source may import although the rendering replaces or drops them.
    REPLACED: ClassVar[set[tuple[str, str]]] = {
        *(("typing", name) for name in (*_OLD_NAMES, "Optional", "Union", "TypeAlias", "Final")),
        *(
            ("typing_extensions", name)
            for name in ("Annotated", "Any", "Literal", "Optional", "Union", "TypeAlias", "Final")
        ),
        *(("pydantic", name) for name in _CONSTRAINED),
        ("datetime", "timezone"),
    }

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.class_names: set[str] = set()
        self.model_names: set[str] = set()
        self.aliases: dict[str, Type] = {}

    def is_type(self, node: ast.expr) -> bool:
        """Return whether an assigned value is a type, rather than a constant."""
        match node:
            case ast.Subscript() | ast.BinOp(op=ast.BitOr()):
                return True
            case ast.Call(func=ast.Name(id=name)):
                return name in _CONSTRAINED
            case ast.Name(id=name):
                return (
                    name in PLAIN_TYPES | _IMPORTED_TYPES | _OLD_NAMES.keys() | self.class_names | self.aliases.keys()
                )
        return False

    def define_alias(self, node: ast.expr, name: str) -> None:
        """Define a type alias. It is inlined where it is used."""
        kind = self.type(node)
        if _depth(kind) > MAX_DEPTH:
            raise self.refuse(node, f"the alias {name}, which is nested too deeply", "keep it simpler")
        self.aliases[name] = kind

    def type(self, node: ast.expr) -> Type:
        """Return a type. Raises ``SchemaError`` for anything else."""
        match node:
            case ast.Constant(value=None):
                return Name("None")
            case ast.Constant(value=str(text)):
                return self._quoted(node, text)
            case ast.Name(id=name) if name in self.aliases or name in self.broken:
                return self._alias(node, name)
            case ast.Name(id=name) if (
                name in self.class_names or name in PLAIN_TYPES | _IMPORTED_TYPES | _OLD_NAMES.keys()
            ):
                return Name(_OLD_NAMES.get(name, name))
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return _union([self.type(left), self.type(right)])
            case ast.Subscript(value=ast.Name(id=name), slice=inner):
                return self._parametrized(node, _OLD_NAMES.get(name, name), inner)
            case ast.Call(func=ast.Name(id=name)) if name in _CONSTRAINED:
                return self._constrained(node, name)
        what = construct(node) if not isinstance(node, ast.Name | ast.Constant) else "the type"
        raise self.refuse(
            node,
            f"{what} {shown(node)}",
            "use str, int, float, bool, list, dict, Literal, Optional, Union, Annotated, a date or time, Decimal, UUID, "
            "or a class of this module",
        )

    def _alias(self, node: ast.expr, name: str) -> Type:
        if name in self.broken:
            raise ConsequenceError(name)
        self.expand(node, name, self.aliases[name])
        return self.aliases[name]

    def _quoted(self, node: ast.expr, text: str) -> Type:
        try:
            inner = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError):
            raise self.refuse(node, f"the type {shown(node)}", "write the name of a class of this module") from None
        check_depth(self.path, inner, node.lineno)
        for part in ast.walk(inner):
            ast.copy_location(part, node)
        return self.type(inner)

    def _parametrized(self, node: ast.expr, name: str, inner: ast.expr) -> Type:
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if len(parts) > MAX_PARTS:
            raise self.refuse(node, f"a type with too many parts ({len(parts)})", f"write at most {MAX_PARTS}")
        if name == "Literal" and parts:
            return Parametrized(name, tuple(self._choice(part) for part in parts))
        if name == "Annotated" and len(parts) > 1:
            limited = self.type(parts[0])
            calls = [self._metadata(part) for part in parts[1:]]
            for call in calls:
                self.check_limits(node, limited, dict(call.arguments))
            return Parametrized(name, (limited, *calls))
        if name == "tuple" and len(parts) == 2 and isinstance(parts[1], ast.Constant) and parts[1].value is ...:
            return Parametrized(name, (self.type(parts[0]), ...))
        types = [self.type(part) for part in parts] if name in {*_GENERICS, "tuple", "Optional", "Union"} else []
        if name == "Union" or (name == "Optional" and len(types) == 1):
            return _union([*types, Name("None")] if name == "Optional" else types)
        hashable = name not in ("set", "frozenset") or all(map(self._is_hashable, types))
        if hashable and types and name != "Optional" and _GENERICS.get(name, len(types)) == len(types):
            return Parametrized(name, tuple(types))
        raise self.refuse(node, f"the type {shown(node)}", "use list[...], dict[..., ...], Literal, Optional, Union")

    def _is_hashable(self, kind: Type) -> bool:
        if isinstance(kind, Name):
            return kind.id not in {"list", "dict", "set", *self.model_names}
        if kind.name in ("Annotated", "|"):
            return all(self._is_hashable(part) for part in kind.arguments if isinstance(part, Name | Parametrized))
        return kind.name in ("Literal", "tuple", "frozenset")

    def _choice(self, node: ast.expr) -> str | int | bool | None:
        value = self.value(node)
        if isinstance(value, Member):
            # In JSON, a member is its value, and pydantic's strict mode takes nothing else.
            value = self.member_value(value)
        if value is None or isinstance(value, str | int):
            return value
        raise self.refuse(node, f"the choice {shown(node)}", "write strings or integers in Literal[...]")

    def _metadata(self, node: ast.expr) -> Call:
        for function in ("Field", "StringConstraints"):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                return Call(function, tuple(self.arguments(node, function).items()))
        raise self.refuse(node, f"{shown(node)} in Annotated", "write Field(...) or StringConstraints(...)")

    def _constrained(self, node: ast.Call, name: str) -> Type:
        base: Type = Name(_CONSTRAINED[name])
        if name in ("conlist", "conset", "confrozenset"):
            item = [*node.args, *(given.value for given in node.keywords if given.arg == "item_type")]
            if len(item) != 1:
                advice = f"write {_CONSTRAINED[name]}[...] with Field(...)"
                raise self.refuse(node, f"{name} without one item type", advice)
            base = Parametrized(_CONSTRAINED[name], (self.type(item[0]),))
            keywords = [given for given in node.keywords if given.arg != "item_type"]
            node = ast.copy_location(ast.Call(node.func, [], keywords), node)
        function = "StringConstraints" if name == "constr" else "Field"
        arguments = self.arguments(node, function)
        return Parametrized("Annotated", (base, Call(function, tuple(arguments.items())))) if arguments else base

    def check_limits(self, node: ast.expr, kind: Type, arguments: Mapping[str, Any]) -> None:
        """Reject limits that the type does not support. Pydantic would only raise when it validates an answer."""
        base = _base(kind)
        for low, high in _PAIRS:
            if low in arguments and high in arguments and arguments[low] > arguments[high]:
                raise self.refuse(node, f"{low} above {high}", "rename one: as written, no answer can match")
        for key in arguments:
            if base in _KNOWN_LIMITS and key in _ALL_LIMITS - _KNOWN_LIMITS[base]:
                known = ", ".join(sorted(_KNOWN_LIMITS[base] & _ALL_LIMITS)) or "none"
                raise self.refuse(node, f"the limit {key} for the type {base}", f"use only: {known}")

    def field_arguments(self, node: ast.expr | None) -> tuple[tuple[str, Any], ...]:
        """Return the arguments given after a field's ``=``, as a ``Field(...)`` call or a default."""
        if node is None or (isinstance(node, ast.Constant) and node.value is ...):
            return ()
        if not isinstance(node, ast.Call):
            return (("default", self.value(node)),)
        if not (isinstance(node.func, ast.Name) and node.func.id == "Field"):
            raise self.refuse(node, f"the call {shown(node)}", "use only Field(...)")
        arguments = self.arguments(node, "Field")
        if {"default", "default_factory"} <= set(arguments):
            raise self.refuse(node, "Field with default and default_factory", "keep one of them")
        first = {"default": arguments.pop("default")} if "default" in arguments else {}
        return tuple((first | arguments).items())


def import_advice(module: str, name: str) -> str:
    """Return what to write instead of the rejected ``from module import name``."""
    known = ", ".join(MODULES.get(module, ())) or "pydantic, typing, enum, datetime, decimal, uuid"
    return _IMPORT_ADVICE.get(name, f"known: {known}, without renaming")


def plain_import_advice(node: ast.Import) -> str:
    """Return what to write instead of ``import module``."""
    module = node.names[0].name
    if module in MODULES:
        return f"write `from {module} import {MODULES[module][0]}` with the names that you use"
    return (
        "the file only declares models and is never run, so it can use no other modules; remove the line, or set "
        "llm_schema.trust: true to run your own code"
    )


_IMPORT_ADVICE = {
    **dict.fromkeys(
        ("field_validator", "model_validator", "validator"),
        "use Field(...) limits, or set llm_schema.trust: true to run your own code",
    ),
    "EmailStr": "use str with a pattern",
    "auto": "write the values explicitly",
    "conbytes": "use str",
    "RootModel": "write a BaseModel with one field",
}


def _union(types: list[Type]) -> Type:
    flat: list[Type] = []
    for part in types:
        flat += part.arguments if isinstance(part, Parametrized) and part.name == "|" else (part,)
    # Compare by repr, since True equals 1 but is a different choice.
    single = list({repr(part): part for part in flat}.values())
    return single[0] if len(single) == 1 else Parametrized("|", tuple(single))


def _depth(kind: Any) -> int:
    """Return how deeply a type is nested."""
    return 1 + max(map(_depth, kind.arguments), default=0) if isinstance(kind, Parametrized) else 0


def _base(kind: Type) -> str:
    """Return the name of the type that limits apply to, or "" for a union of several."""
    if isinstance(kind, Name):
        return kind.id
    if kind.name == "Annotated":
        return _base(kind.arguments[0])
    if kind.name == "|":
        parts = [part for part in kind.arguments if part != Name("None")]
        return _base(parts[0]) if len(parts) == 1 else ""
    return kind.name
