"""The part of the grammar that reads types."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, ClassVar

from llmbatch_assets.domain.schema.spec import MODULES, Call, Name, Parametrized, Type
from llmbatch_assets.domain.schema.value_grammar import (
    NUMBER_LIMITS,
    TEXT_LIMITS,
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

# Short forms of pydantic, by the type that they limit.
_CONSTRAINED = {
    "constr": "str",
    "conint": "int",
    "confloat": "float",
    "condecimal": "Decimal",
    "conlist": "list",
    "conset": "set",
    "confrozenset": "frozenset",
}
_SIZES = {"min_length", "max_length"}
_ALL_LIMITS = {*NUMBER_LIMITS, *TEXT_LIMITS} - {"strict"}
_PAIRS = (("ge", "le"), ("ge", "lt"), ("gt", "le"), ("gt", "lt"), ("min_length", "max_length"))
# The limits of a type. A type that is not here takes what pydantic lets it take.
_KNOWN_LIMITS: Mapping[str, set[str]] = {
    "str": TEXT_LIMITS,
    "int": {"gt", "ge", "lt", "le", "multiple_of"},
    "float": {"gt", "ge", "lt", "le", "multiple_of", "allow_inf_nan"},
    "Decimal": NUMBER_LIMITS,
    "bool": set(),
    **dict.fromkeys(("list", "dict", "set", "frozenset", "tuple"), _SIZES),
    "Literal": set(),
    "UUID": set(),
    "None": set(),
}


class TypeReader(ValueReader):
    """Reads types of one module; knows its classes."""

    # Names that a source may import although the rendering uses others in their place, or none.
    REPLACED: ClassVar[set[tuple[str, str]]] = {
        *(("typing", name) for name in (*_OLD_NAMES, "Optional", "Union")),
        *(("pydantic", name) for name in _CONSTRAINED),
        ("datetime", "timezone"),
    }

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.class_names: set[str] = set()
        self.model_names: set[str] = set()

    def type(self, node: ast.expr) -> Type:
        """A type."""
        match node:
            case ast.Constant(value=None):
                return Name("None")
            case ast.Constant(value=str(text)):
                return self._quoted(node, text)
            case ast.Name(id=name) if name in self.class_names or name in PLAIN_TYPES | _IMPORTED_TYPES:
                return Name(name)
            case ast.Name(id=name) if name in _OLD_NAMES:
                return Name(_OLD_NAMES[name])
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
            raise self.refuse(node, f"a type of so many parts ({len(parts)})", f"write at most {MAX_PARTS}")
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
        if value is None or isinstance(value, str | int):
            return value
        raise self.refuse(node, f"the choice {shown(node)}", "write texts or whole numbers in Literal[...]")

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
                raise self.refuse(
                    node, f"{name} without one item type", f"write {_CONSTRAINED[name]}[...] with Field(...)"
                )
            base = Parametrized(_CONSTRAINED[name], (self.type(item[0]),))
            node = ast.copy_location(
                ast.Call(node.func, [], [given for given in node.keywords if given.arg != "item_type"]), node
            )
        function = "StringConstraints" if name == "constr" else "Field"
        arguments = self.arguments(node, function)
        return Parametrized("Annotated", (base, Call(function, tuple(arguments.items())))) if arguments else base

    def check_limits(self, node: ast.expr, kind: Type, arguments: Mapping[str, Any]) -> None:
        """Refuse limits that the type does not know; pydantic would tell of them at each answer."""
        base = _base(kind)
        for low, high in _PAIRS:
            if low in arguments and high in arguments and arguments[low] > arguments[high]:
                raise self.refuse(node, f"{low} above {high}", "exchange them: no answer could pass")
        for key in arguments:
            unknown = base in _KNOWN_LIMITS and key in _ALL_LIMITS and key not in _KNOWN_LIMITS[base]
            if unknown:
                known = ", ".join(sorted(_KNOWN_LIMITS[base] & set(_ALL_LIMITS))) or "none"
                raise self.refuse(node, f"the limit {key} of the type {base}", f"its limits: {known}")

    def field_arguments(self, node: ast.expr | None) -> tuple[tuple[str, Any], ...]:
        """What stands behind a field's ``=``: a ``Field(...)`` call, or a default."""
        if node is None or (isinstance(node, ast.Constant) and node.value is ...):
            return ()
        if not isinstance(node, ast.Call):
            return (("default", self.value(node)),)
        if not (isinstance(node.func, ast.Name) and node.func.id == "Field"):
            raise self.refuse(node, f"the call {shown(node)}", "only Field(...) is called in a schema")
        arguments = self.arguments(node, "Field")
        if {"default", "default_factory"} <= set(arguments):
            raise self.refuse(node, "Field with default and default_factory", "keep one of them")
        first = {"default": arguments.pop("default")} if "default" in arguments else {}
        return tuple((first | arguments).items())


class ImportAdvice:
    """What to write in place of an import that is refused."""

    @staticmethod
    def of(module: str, name: str) -> str:
        """Advice for ``from module import name``."""
        advice = {
            "field_validator": "say it with Field(...) limits, or set llm_schema.trust: true to run your own code",
            "model_validator": "say it with Field(...) limits, or set llm_schema.trust: true to run your own code",
            "validator": "say it with Field(...) limits, or set llm_schema.trust: true to run your own code",
            "EmailStr": "use str with a pattern",
            "auto": "write the values out",
            "conbytes": "use str",
            "RootModel": "write a BaseModel with a field",
        }
        known = ", ".join(MODULES.get(module, ())) or "pydantic, typing, enum, datetime, decimal, uuid"
        return advice.get(name, f"known: {known}, under their own names")


def _union(types: list[Type]) -> Type:
    flat: list[Type] = []
    for part in types:
        flat += part.arguments if isinstance(part, Parametrized) and part.name == "|" else (part,)
    # By their text: True and 1 are equal, and are not the same choice.
    single = list({repr(part): part for part in flat}.values())
    return single[0] if len(single) == 1 else Parametrized("|", tuple(single))


def _base(kind: Type) -> str:
    """The name of the type that limits apply to; empty where there are several."""
    if isinstance(kind, Name):
        return kind.id
    if kind.name == "Annotated":
        return _base(kind.arguments[0])
    if kind.name == "|":
        parts = [part for part in kind.arguments if part != Name("None")]
        return _base(parts[0]) if len(parts) == 1 else ""
    return kind.name
