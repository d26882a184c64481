"""Read the literal values and call arguments of a schema module."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import PydanticUserError, StringConstraints, TypeAdapter
from pydantic_core import SchemaError as CoreSchemaError

from llmbatch_assets.domain.schema.spec import Member, Name
from llmbatch_assets.errors import SchemaError

MAX_PATTERN_CHARS = 1_000
MAX_PATTERNS = 20
MAX_DEPTH = 60
MAX_EXPANDED_CHARS = 100_000
LARGEST_INT = 2**63
LONGEST = 10**9
SHOWN_CHARS = 60

NUMBER_LIMITS = {"gt", "ge", "lt", "le", "multiple_of", "strict", "allow_inf_nan", "max_digits", "decimal_places"}
TEXT_LIMITS = {"min_length", "max_length", "pattern", "strip_whitespace", "to_upper", "to_lower", "strict"}
_FIELD_ARGUMENTS = {
    *("default", "default_factory", "alias", "validation_alias", "serialization_alias", "title", "description"),
    *("examples", "deprecated", "json_schema_extra", "discriminator", "frozen", "validate_default", "union_mode"),
    *("min_length", "max_length", "pattern", *NUMBER_LIMITS),
}
_TEXT_ARGUMENTS = {"alias", "validation_alias", "serialization_alias", "title", "description", "discriminator"}
_FACTORIES = {"list", "dict", "set"}
# Keywords that json_schema_extra must not set: the prompt's schema would differ from the validation.
_SCHEMA_KEYWORDS = {
    *("type", "enum", "const", "properties", "required", "additionalProperties", "patternProperties", "items"),
    *("prefixItems", "contains", "minContains", "maxContains", "uniqueItems", "minItems", "maxItems", "minLength"),
    *("maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minProperties", "maxProperties", "propertyNames", "anyOf", "oneOf", "allOf", "not", "if", "then", "else"),
    *("definitions", "discriminator", "dependencies", "dependentRequired", "dependentSchemas", "default", "nullable"),
    *("unevaluatedProperties", "unevaluatedItems", "contentEncoding", "contentMediaType", "contentSchema"),
}
_CONSTRUCTS: dict[type[ast.AST], str] = {
    **dict.fromkeys((ast.FunctionDef, ast.AsyncFunctionDef), "a function"),
    **dict.fromkeys((ast.Assign, ast.AugAssign), "an assignment"),
    **dict.fromkeys((ast.For, ast.While), "a loop"),
    **dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp), "a comprehension"),
    ast.If: "an if",
    ast.Try: "a try",
    ast.With: "a with",
    ast.Delete: "a del",
    ast.Call: "a call",
    ast.Lambda: "a lambda",
    ast.Import: "a plain import",
    ast.Expr: "a bare expression or call",
    ast.ClassDef: "a class inside a class",
    ast.JoinedStr: "an f-string",
    ast.Attribute: "attribute access",
    ast.Starred: "a star-argument",
}


def construct(node: ast.AST) -> str:
    """Name a rejected piece of source, for messages."""
    return _CONSTRUCTS.get(type(node), f"this {type(node).__name__}")


def check_depth(path: str, tree: ast.AST, line: int = 1) -> None:
    """Raise ``SchemaError`` if the source is nested more than ``MAX_DEPTH`` levels deep."""
    layer = list[ast.AST]([tree])
    for _ in range(MAX_DEPTH):
        layer = [child for node in layer for child in ast.iter_child_nodes(node)]
        if not layer:
            return
        line = next((node.lineno for node in layer if hasattr(node, "lineno")), line)
    raise SchemaError(f"{path}:{line}: nested too deeply for a schema; keep it simpler")


class ConsequenceError(SchemaError):
    """Something that cannot be read because of a mistake elsewhere, which is reported there."""


class ValueReader:
    """Reads the literal values of one module; knows its constants and enums."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.constants: dict[str, Any] = {}
        # The members of each enum, with their values as they are written.
        self.enums: dict[str, dict[str, ast.expr]] = {}
        # Names whose definitions have mistakes.
        self.broken: set[str] = set()
        self._expanded = 0
        self._patterns = 0

    def refuse(self, node: ast.AST, what: str, instead: str) -> SchemaError:
        """Return the error that names the line, the construct and what to write instead."""
        return SchemaError(f"{self.path}:{getattr(node, 'lineno', 1)}: {what} is not allowed in a schema; {instead}")

    def docstring(self, node: ast.Module | ast.ClassDef) -> str | None:
        """Return the uncleaned docstring. Pydantic cleans it, and cleaning it twice would change it."""
        text = ast.get_docstring(node, clean=False)
        if text is not None and not _is_plain(text):
            raise self.refuse(node.body[0], "half of a surrogate pair in a docstring", "write complete characters")
        return text

    def settings(self, node: ast.expr, function: str) -> dict[str, Any]:
        """Return the literal keywords of a call of ``function``, or of a dict in its place."""
        match node:
            case ast.Dict() if not has_member(settings := dict(self.value(node))):
                return settings
            case ast.Call(func=ast.Name(id=name), args=[], keywords=given) if name == function:
                settings = {str(part.arg): self.value(part.value) for part in given if part.arg}
                if len(settings) == len(given) and not has_member(settings):
                    return settings
        raise self.refuse(node, shown(node), f"write {function}(...) with literal settings")

    def arguments(self, node: ast.Call, function: str) -> dict[str, Any]:
        """Return the literal arguments of a ``Field`` or ``StringConstraints`` call, by name."""
        known = TEXT_LIMITS if function == "StringConstraints" else _FIELD_ARGUMENTS
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
            raise self.refuse(node, f"default_factory={shown(node)}", "use default_factory=list, dict or set")
        value = self.value(node) if key == "default" else self._plain(node)
        if key in _TEXT_ARGUMENTS and not isinstance(value, str | None):
            raise self.refuse(node, f"{key}={shown(node)}", f"write a string for {key}")
        if key in _BOUNDS and not _BOUNDS[key](value):
            raise self.refuse(node, f"{key}={shown(node)}", _BOUND_ADVICE)
        if (key, value) == ("strict", False):
            raise self.refuse(node, "strict=False", "leave it out; validation is always strict")
        if key == "pattern":
            self._check_pattern(node, value)
        if key == "json_schema_extra":
            self.check_extra(node, value)
        return value

    def _plain(self, node: ast.expr) -> Any:
        value = self.value(node)
        if has_member(value):
            raise self.refuse(node, f"the enum member in {shown(node)}", "write its value")
        return value

    def _check_pattern(self, node: ast.expr, pattern: Any) -> None:
        self._patterns += 1
        if self._patterns > MAX_PATTERNS:
            raise self.refuse(node, f"pattern number {self._patterns}", f"write at most {MAX_PATTERNS}")
        if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_CHARS:
            raise self.refuse(node, "this pattern", f"write a string of at most {MAX_PATTERN_CHARS} characters")
        try:
            TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
        except (CoreSchemaError, PydanticUserError) as broken:
            reason = str(broken).strip().splitlines()[-1]
            advice = f"it does not compile ({reason}); look-around is not supported"
            raise self.refuse(node, f"the pattern {pattern[:SHOWN_CHARS]!r}", advice) from None

    def check_extra(self, node: ast.expr, value: Any) -> None:
        """Reject a ``json_schema_extra`` that would change what the schema requires."""
        if not isinstance(value, dict) or any(key in _SCHEMA_KEYWORDS or key.startswith("$") for key in value):
            advice = "write a dict of examples or notes; limits belong in Field"
            raise self.refuse(node, f"json_schema_extra={shown(node)}", advice)

    def value(self, node: ast.expr) -> Any:
        """Return a literal value or a constant of the module."""
        match node:
            case ast.Constant() | ast.UnaryOp() if _is_literal(node):
                return ast.literal_eval(node)
            case ast.List(elts=items):
                return [self.value(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self.value(item) for item in items)
            case ast.Dict(keys=keys, values=values):
                return self._mapping(node, keys, values)
            case ast.Name(id=name) if name in self.constants or name in self.broken:
                return self._constant(node, name)
            case ast.Attribute(value=ast.Name(id=enum), attr=name) if self._is_member(node):
                return Member(enum, name)
            case ast.Attribute(value=ast.Attribute() as member, attr="value" | "name" as part) if self._is_member(
                member
            ):
                return member.attr if part == "name" else self.member_value(self.value(member))
        raise self._no_value(node)

    def _no_value(self, node: ast.expr) -> SchemaError:
        match node:
            case ast.Attribute(value=ast.Name(id=enum)) if enum in self.enums:
                known = ", ".join(f"{enum}.{name}" for name in self.enums[enum])
                return self.refuse(node, f"the unknown member {shown(node)}", f"write one of: {known}")
        what = construct(node) if not isinstance(node, ast.Name | ast.Constant) else "the value"
        return self.refuse(
            node, f"{what} {shown(node)}", "write a literal: text, a number, True, False, None or a list"
        )

    def _is_member(self, node: ast.Attribute) -> bool:
        return isinstance(node.value, ast.Name) and node.attr in self.enums.get(node.value.id, ())

    def member_value(self, member: Member) -> Any:
        """Return the value of a member of an enum."""
        return self.value(self.enums[member.enum][member.name])

    def define(self, node: ast.expr, name: str) -> None:
        """Define a literal constant. It may not use other constants, since nested ones could grow without limit."""
        others, self.constants = self.constants, {}
        self.constants = {**others, name: self.value(node)}

    def _constant(self, node: ast.expr, name: str) -> Any:
        if name in self.broken:
            raise ConsequenceError(name)
        self.expand(node, name, self.constants[name])
        return self.constants[name]

    def expand(self, node: ast.expr, name: str, value: object) -> None:
        """Count the size of a constant or alias where it is used, and reject too many large ones."""
        self._expanded += len(repr(value))
        if self._expanded > MAX_EXPANDED_CHARS:
            raise self.refuse(node, f"repeated use of the large {name}", "use it once")

    def _mapping(self, node: ast.expr, keys: list[ast.expr | None], values: list[ast.expr]) -> dict[str, Any]:
        read = [None if key is None else self.value(key) for key in keys]
        if not all(isinstance(key, str) for key in read) or len(set(read)) != len(read):
            raise self.refuse(node, f"the mapping {shown(node)}", "write each key once, as a string")
        return dict(zip(map(str, read), map(self.value, values), strict=True))


def _is_literal(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=plain):
            return _is_plain(plain)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return _is_number(number)
    return False


def has_member(value: Any) -> bool:
    """Return whether a value is or contains a member of an enum."""
    if isinstance(value, list | tuple | dict):
        return any(map(has_member, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Member)


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INT


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LONGEST


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


_BOUNDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("gt", "ge", "lt", "le"), _is_number),
    **dict.fromkeys(("min_length", "max_length", "max_digits", "decimal_places"), _is_length),
    **dict.fromkeys(("strict", "allow_inf_nan", "strip_whitespace", "to_upper", "to_lower"), _is_flag),
    **dict.fromkeys(("frozen", "validate_default"), _is_flag),
    "multiple_of": lambda value: _is_number(value) and value > 0,
    "union_mode": lambda value: value in ("smart", "left_to_right"),
}
_BOUND_ADVICE = "write a number for a bound, a non-negative integer for a length, True or False for a flag"


def _is_plain(value: object) -> bool:
    """Return whether JSON can hold a constant: no bytes, complex or infinite number, or lone surrogate."""
    if isinstance(value, str):
        return value.isascii() or not re.search("[\ud800-\udfff]", value)
    return value is None or isinstance(value, bool) or _is_number(value)


def shown(node: ast.expr) -> str:
    """Return the beginning of an expression, for a message."""
    try:
        return ast.unparse(node)[:SHOWN_CHARS]
    except ValueError:
        return "with a number of thousands of digits"
