"""The part of the grammar that reads types, calls and literal values."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import PydanticUserError, StringConstraints, TypeAdapter
from pydantic_core import SchemaError as CoreSchemaError

from llmbatch_assets.domain.schema_spec import MODULES, Call, Name, Parametrized, Type
from llmbatch_assets.errors import SchemaError

MAX_PATTERN_CHARS = 1_000
MAX_PARTS = 1_000
MAX_PATTERNS = 20
MAX_DEPTH = 60
MAX_EXPANDED_CHARS = 100_000
LARGEST_INT = 2**63
LONGEST = 10**9
SHOWN_CHARS = 60

PLAIN_TYPES = {"str", "int", "float", "bool", "list", "dict", "set", "frozenset", "tuple"}
_NO_TYPES = {"BaseModel", "ConfigDict", "Field", "StringConstraints", "Annotated", "Literal"}
_IMPORTED_TYPES = {
    name for module, names in MODULES.items() if module != "enum" for name in names if name not in _NO_TYPES
}
_GENERICS = {"list": 1, "dict": 2, "set": 1, "frozenset": 1}
_OLD_NAMES = {"List": "list", "Dict": "dict", "Set": "set", "FrozenSet": "frozenset", "Tuple": "tuple"}

_NUMBER_LIMITS = {"gt", "ge", "lt", "le", "multiple_of", "strict", "allow_inf_nan", "max_digits", "decimal_places"}
_TEXT_LIMITS = {"min_length", "max_length", "pattern", "strip_whitespace", "to_upper", "to_lower", "strict"}
_FIELD_ARGUMENTS = {
    *("default", "default_factory", "alias", "validation_alias", "serialization_alias", "title", "description"),
    *("examples", "deprecated", "json_schema_extra", "discriminator", "frozen", "validate_default", "union_mode"),
    *("min_length", "max_length", "pattern", *_NUMBER_LIMITS),
}
_TEXT_ARGUMENTS = {"alias", "validation_alias", "serialization_alias", "title", "description", "discriminator"}
_FACTORIES = {"list", "dict", "set"}
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
_ALL_LIMITS = {*_NUMBER_LIMITS, *_TEXT_LIMITS} - {"strict"}
_PAIRS = (("ge", "le"), ("ge", "lt"), ("gt", "le"), ("gt", "lt"), ("min_length", "max_length"))
# The limits of a type. A type that is not here takes what pydantic lets it take.
_KNOWN_LIMITS: Mapping[str, set[str]] = {
    "str": _TEXT_LIMITS,
    "int": {"gt", "ge", "lt", "le", "multiple_of"},
    "float": {"gt", "ge", "lt", "le", "multiple_of", "allow_inf_nan"},
    "Decimal": _NUMBER_LIMITS,
    "bool": set(),
    **dict.fromkeys(("list", "dict", "set", "frozenset", "tuple"), _SIZES),
    "Literal": set(),
    "UUID": set(),
    "None": set(),
}
# What json_schema_extra must leave alone: the shown schema would say other than what is validated.
_SCHEMA_KEYWORDS = {
    *("type", "enum", "const", "properties", "required", "additionalProperties", "patternProperties", "items"),
    *("prefixItems", "contains", "minContains", "maxContains", "uniqueItems", "minItems", "maxItems", "minLength"),
    *("maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minProperties", "maxProperties", "propertyNames", "anyOf", "oneOf", "allOf", "not", "if", "then", "else"),
    *("definitions", "discriminator", "dependencies", "dependentRequired", "dependentSchemas", "default", "nullable"),
    *("unevaluatedProperties", "unevaluatedItems", "contentEncoding", "contentMediaType", "contentSchema"),
}
_CONSTRUCTS = {
    ast.FunctionDef: "a function",
    ast.AsyncFunctionDef: "a function",
    ast.Lambda: "a lambda",
    ast.Import: "a plain import",
    ast.Expr: "a bare expression or call",
    ast.Assign: "an assignment",
    ast.AugAssign: "an assignment",
    ast.If: "an if",
    ast.Try: "a try",
    ast.With: "a with",
    ast.For: "a loop",
    ast.While: "a loop",
    ast.ClassDef: "a class inside a class",
    ast.Delete: "a del",
    ast.JoinedStr: "an f-string",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.Attribute: "attribute access",
    ast.Call: "a call",
    ast.Starred: "a star-argument",
}


def construct(node: ast.AST) -> str:
    """What to call a piece of source that is refused."""
    return _CONSTRUCTS.get(type(node), f"this {type(node).__name__}")


def check_depth(path: str, tree: ast.AST, line: int = 1) -> None:
    """Raise ``SchemaError`` for source that is nested beyond what a schema needs."""
    layer = list[ast.AST]([tree])
    for _ in range(MAX_DEPTH):
        layer = [child for node in layer for child in ast.iter_child_nodes(node)]
        if not layer:
            return
        line = next((node.lineno for node in layer if hasattr(node, "lineno")), line)
    raise SchemaError(f"{path}:{line}: nested too deeply for a schema; write it plainer")


class TypeReader:
    """Reads expressions of one module; knows its classes and constants."""

    # Names that a source may import although the rendering uses others in their place, or none.
    REPLACED: ClassVar[set[tuple[str, str]]] = {
        *(("typing", name) for name in (*_OLD_NAMES, "Optional", "Union")),
        *(("pydantic", name) for name in _CONSTRAINED),
        ("datetime", "timezone"),
    }

    def __init__(self, path: str) -> None:
        self.path = path
        self.class_names: set[str] = set()
        self.model_names: set[str] = set()
        self.constants: dict[str, Any] = {}
        self._expanded = 0
        self._patterns = 0

    def refuse(self, node: ast.AST, what: str, instead: str) -> SchemaError:
        """The error that names a line and construct, and what to write instead."""
        return SchemaError(f"{self.path}:{getattr(node, 'lineno', 1)}: {what} is not part of a schema; {instead}")

    def docstring(self, node: ast.Module | ast.ClassDef) -> str | None:
        """The docstring as it stands: cleaning twice gives another text than once, and pydantic cleans it itself."""
        text = ast.get_docstring(node, clean=False)
        if text is not None and not _is_plain(text):
            raise self.refuse(node.body[0], "half of a surrogate pair in a docstring", "write whole characters")
        return text

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
            f"{what} {_shown(node)}",
            "use str, int, float, bool, list, dict, Literal, Optional, Union, Annotated, a date or time, Decimal, UUID, "
            "or a class of this module",
        )

    def _quoted(self, node: ast.expr, text: str) -> Type:
        try:
            inner = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError):
            raise self.refuse(node, f"the type {_shown(node)}", "write the name of a class of this module") from None
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
        raise self.refuse(node, f"the type {_shown(node)}", "use list[...], dict[..., ...], Literal, Optional, Union")

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
        raise self.refuse(node, f"the choice {_shown(node)}", "write texts or whole numbers in Literal[...]")

    def _metadata(self, node: ast.expr) -> Call:
        for function in ("Field", "StringConstraints"):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                return Call(function, tuple(self._arguments(node, function).items()))
        raise self.refuse(node, f"{_shown(node)} in Annotated", "write Field(...) or StringConstraints(...)")

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
        arguments = self._arguments(node, function)
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
            raise self.refuse(node, f"the call {_shown(node)}", "only Field(...) is called in a schema")
        arguments = self._arguments(node, "Field")
        if {"default", "default_factory"} <= set(arguments):
            raise self.refuse(node, "Field with default and default_factory", "keep one of them")
        first = {"default": arguments.pop("default")} if "default" in arguments else {}
        return tuple((first | arguments).items())

    def settings(self, node: ast.expr, function: str) -> dict[str, Any]:
        """The literal keywords of a call of ``function``, or of a mapping in its place."""
        if isinstance(node, ast.Dict):
            value = self.value(node)
            if all(isinstance(key, str) for key in value):
                return dict(value)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == function
            and not node.args
            and all(given.arg for given in node.keywords)
        ):
            return {str(given.arg): self.value(given.value) for given in node.keywords}
        raise self.refuse(node, f"{_shown(node)}", f"write {function}(...) with literal settings")

    def _arguments(self, node: ast.Call, function: str) -> dict[str, Any]:
        known = _TEXT_LIMITS if function == "StringConstraints" else _FIELD_ARGUMENTS
        arguments: dict[str, Any] = {}
        if node.args and (function != "Field" or len(node.args) > 1):
            raise self.refuse(node, f"a positional argument of {function}", "name it")
        given = [("default", value) for value in node.args] + [(part.arg or "**", part.value) for part in node.keywords]
        for key, value in given:
            if key in arguments:
                raise self.refuse(node, f"{function} with {key} given twice", "keep one of them")
            if key not in known:
                raise self.refuse(node, f"{function}({key}=...)", f"known: {', '.join(sorted(known))}")
            if not (key == "default" and isinstance(value, ast.Constant) and value.value is ...):
                arguments[key] = self._argument(key, value)
        return arguments

    def _argument(self, key: str, node: ast.expr) -> Any:
        if key == "default_factory":
            if isinstance(node, ast.Name) and node.id in _FACTORIES:
                return Name(node.id)
            raise self.refuse(node, f"default_factory={_shown(node)}", "use default_factory=list, dict or set")
        value = self.value(node)
        if key in _TEXT_ARGUMENTS and not isinstance(value, str | None):
            raise self.refuse(node, f"{key}={_shown(node)}", f"write a text for {key}")
        if key in _BOUNDS and not _BOUNDS[key](value):
            raise self.refuse(node, f"{key}={_shown(node)}", _BOUND_ADVICE)
        if (key, value) == ("strict", False):
            raise self.refuse(node, "strict=False", "leave it out: answers are validated strictly")
        if key == "pattern":
            self._check_pattern(node, value)
        if key == "json_schema_extra":
            self.check_extra(node, value)
        return value

    def _check_pattern(self, node: ast.expr, pattern: Any) -> None:
        self._patterns += 1
        if self._patterns > MAX_PATTERNS:
            raise self.refuse(node, f"pattern number {self._patterns}", f"write at most {MAX_PATTERNS}")
        if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_CHARS:
            raise self.refuse(node, "this pattern", f"write a text of at most {MAX_PATTERN_CHARS} characters")
        try:
            TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
        except (CoreSchemaError, PydanticUserError) as broken:
            reason = str(broken).strip().splitlines()[-1]
            raise self.refuse(
                node,
                f"the pattern {pattern[:SHOWN_CHARS]!r}",
                f"it does not compile ({reason}); look-around is unknown",
            ) from None

    def check_extra(self, node: ast.expr, value: Any) -> None:
        """Refuse a ``json_schema_extra`` that changes what the schema demands."""
        if not isinstance(value, dict) or any(key in _SCHEMA_KEYWORDS or key.startswith("$") for key in value):
            raise self.refuse(
                node, f"json_schema_extra={_shown(node)}", "write a dict of examples or notes; limits belong into Field"
            )

    def value(self, node: ast.expr) -> Any:
        """A literal value, or a constant of the module."""
        match node:
            case ast.Constant(value=plain) if _is_plain(plain):
                return plain
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if _is_number(
                number
            ):
                return -number
            case ast.List(elts=items):
                return [self.value(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self.value(item) for item in items)
            case ast.Dict(keys=keys, values=values):
                return self._mapping(node, keys, values)
            case ast.Name(id=name) if name in self.constants:
                return self._constant(node, name)
        what = construct(node) if not isinstance(node, ast.Name | ast.Constant) else "the value"
        raise self.refuse(
            node, f"{what} {_shown(node)}", "write a literal: a text, a number, True, False, None, a list"
        )

    def define(self, node: ast.expr, name: str) -> None:
        """Take a literal constant into account. It may not refer to others: together they could be endless."""
        others, self.constants = self.constants, {}
        self.constants = {**others, name: self.value(node)}

    def _constant(self, node: ast.expr, name: str) -> Any:
        value = self.constants[name]
        self._expanded += len(repr(value))
        if self._expanded > MAX_EXPANDED_CHARS:
            raise self.refuse(node, f"so much of the constant {name}", "use large constants once")
        return value

    def _mapping(self, node: ast.expr, keys: list[ast.expr | None], values: list[ast.expr]) -> dict[str, Any]:
        read = [None if key is None else self.value(key) for key in keys]
        if not all(isinstance(key, str) for key in read) or len(set(read)) != len(read):
            raise self.refuse(node, f"the mapping {_shown(node)}", "write each key once, as a text")
        return dict(zip(map(str, read), map(self.value, values), strict=True))


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


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INT


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LONGEST


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_union_mode(value: object) -> bool:
    return value in ("smart", "left_to_right")


def _is_step(value: object) -> bool:
    return _is_number(value) and value > 0  # type: ignore[operator]  # a number


_BOUNDS = {
    **dict.fromkeys(("gt", "ge", "lt", "le"), _is_number),
    **dict.fromkeys(("min_length", "max_length", "max_digits", "decimal_places"), _is_length),
    **dict.fromkeys(("strict", "allow_inf_nan", "strip_whitespace", "to_upper", "to_lower"), _is_flag),
    **dict.fromkeys(("frozen", "validate_default"), _is_flag),
    "multiple_of": _is_step,
    "union_mode": _is_union_mode,
}
_BOUND_ADVICE = "write a number for a bound, a whole number from 0 for a length, True or False for a switch"


def _is_plain(value: object) -> bool:
    """Whether a constant can stand in JSON: no bytes, no complex or infinite number, no half of a surrogate pair."""
    if isinstance(value, str):
        return value.isascii() or not re.search("[\ud800-\udfff]", value)
    return value is None or isinstance(value, bool) or _is_number(value)


def _union(types: list[Type]) -> Type:
    flat: list[Type] = []
    for part in types:
        flat += part.arguments if isinstance(part, Parametrized) and part.name == "|" else (part,)
    # By their text: True and 1 are equal, and are not the same choice.
    single = list({repr(part): part for part in flat}.values())
    return single[0] if len(single) == 1 else Parametrized("|", tuple(single))


def _shown(node: ast.expr) -> str:
    try:
        return ast.unparse(node)[:SHOWN_CHARS]
    except ValueError:
        return "with a number of thousands of digits"


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
