"""The part of the grammar that reads literal values, and the arguments of calls."""

from __future__ import annotations

import ast
import math
import re
from typing import Annotated, Any

from pydantic import PydanticUserError, StringConstraints, TypeAdapter
from pydantic_core import SchemaError as CoreSchemaError

from llmbatch_assets.domain.schema.spec import Name
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


class ValueReader:
    """Reads literal values of one module; knows its constants."""

    def __init__(self, path: str) -> None:
        self.path = path
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
        raise self.refuse(node, f"{shown(node)}", f"write {function}(...) with literal settings")

    def arguments(self, node: ast.Call, function: str) -> dict[str, Any]:
        """The literal arguments of a call of ``Field`` or ``StringConstraints``, by name."""
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
        value = self.value(node)
        if key in _TEXT_ARGUMENTS and not isinstance(value, str | None):
            raise self.refuse(node, f"{key}={shown(node)}", f"write a text for {key}")
        if key in _BOUNDS and not _BOUNDS[key](value):
            raise self.refuse(node, f"{key}={shown(node)}", _BOUND_ADVICE)
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
                node, f"json_schema_extra={shown(node)}", "write a dict of examples or notes; limits belong into Field"
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
        raise self.refuse(node, f"{what} {shown(node)}", "write a literal: a text, a number, True, False, None, a list")

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
            raise self.refuse(node, f"the mapping {shown(node)}", "write each key once, as a text")
        return dict(zip(map(str, read), map(self.value, values), strict=True))


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


def shown(node: ast.expr) -> str:
    """The beginning of an expression, for a message."""
    try:
        return ast.unparse(node)[:SHOWN_CHARS]
    except ValueError:
        return "with a number of thousands of digits"
