"""Parse YAML into plain values, within limits. Messages say which line is wrong and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

MAX_BYTES = 1_000_000
# Counts what aliases repeat each time, so that a file cannot expand to more than this.
MAX_VALUES = 10_000
MAX_DEPTH = 50
_MERGE = "tag:yaml.org,2002:merge"


class YamlMistakeError(ValueError):
    """The text is not YAML or exceeds a limit. The message names the line."""


class _LimitedLoader(yaml.SafeLoader):
    """Safe YAML with limits. Refuses repeated keys, of which PyYAML silently keeps the last one."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._n_nodes = 0
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._n_nodes += 1
        self._depth += 1
        if self._n_nodes > MAX_VALUES:
            raise YamlMistakeError(f"more than {MAX_VALUES:,} values")
        if self._depth > MAX_DEPTH:
            event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it out
            raise YamlMistakeError(f"line {event.start_mark.line + 1}: nested more than {MAX_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _require_bounded(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = None if key_node.tag == _MERGE else self.construct_object(key_node, deep=True)
            if key_node.tag == _MERGE or not isinstance(key, Hashable):
                # The base class refuses keys that are not hashable.
                continue
            if key in seen:
                raise YamlMistakeError(f"line {key_node.start_mark.line + 1}: the key {key!r} is written twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document. Raises ``YamlMistakeError``."""
    if len(text) > MAX_BYTES:
        raise YamlMistakeError(f"larger than {MAX_BYTES // 1_000_000} MB")
    try:
        return yaml.load(text, Loader=_LimitedLoader)  # noqa: S506  # derives from SafeLoader
    except RecursionError:
        raise YamlMistakeError("nested too deeply") from None
    except yaml.MarkedYAMLError as broken:
        raise YamlMistakeError(f"not valid YAML: {_explained(broken, text)}") from None
    except yaml.reader.ReaderError as broken:
        line = text.count("\n", 0, broken.position) + 1
        raise YamlMistakeError(
            f"not valid YAML: line {line}: the character U+{_code_point(broken.character):04X} is not allowed; delete it"
        ) from None
    except YamlMistakeError:
        raise
    except ValueError as broken:
        raise YamlMistakeError(f"not valid YAML: {broken}; put a text that looks like a date in quotes") from None


def _code_point(character: object) -> int:
    return character if isinstance(character, int) else ord(str(character)[:1] or "?")


def _require_bounded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return the number of values below a node, with each alias counted as what it repeats. Raises above the limit."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise YamlMistakeError(f"line {node.start_mark.line + 1}: an anchor is used within its own value")
        return sizes[id(node)]
    # In progress.
    sizes[id(node)] = 0
    children = node.value if isinstance(node, yaml.CollectionNode) else ()
    parts = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
    size = 1 + sum(_require_bounded(part, sizes) for part in parts)
    if size > MAX_VALUES:
        line = node.start_mark.line + 1
        raise YamlMistakeError(f"line {line}: aliases (*name) repeat more than {MAX_VALUES:,} values; write them out")
    sizes[id(node)] = size
    return size


# The parser's messages, and ours.
_ADVICE = (
    (r"found character '\\t'", "a tab; use spaces to indent"),
    (
        r"expected <block end>, but found '<block (mapping|sequence) start>'",
        "this line is indented differently from the lines of its block; use the same number of spaces",
    ),
    (r"expected <block end>, but found '-'", "a list item where a key is expected; check the indentation"),
    (
        r"expected <block end>, but found '<scalar>'",
        "text after a closing quote or bracket; put the whole text in quotes, or on lines of its own after '|'",
    ),
    (
        r"mapping values are not allowed",
        "a key or ':' is not allowed here; check the indentation, and put text that contains ': ' in quotes",
    ),
    (r"could not find expected ':'", "a key without ':'; write 'key: value', and indent text of several lines"),
    (r"expected ',' or '[\]}]'.*<stream end>", "a bracket is not closed"),
    (r"expected ',' or '[\]}]'", "a comma or a closing bracket is missing; put text with brackets in quotes"),
    (r"found unexpected end of stream", "a quote is not closed"),
    (
        r"found unknown escape character|expected escape sequence",
        "in double quotes, write a backslash twice; or use single quotes",
    ),
    (r"expected a single document", "a second document begins ('---'); keep one document in a file"),
    (r"found undefined alias", "text that begins with '*' is read as an alias; put it in quotes"),
    (r"could not determine a constructor for the tag", "a tag ('!...') is not supported; put text with '!' in quotes"),
    (r"found unhashable key", "a key must be text; put text that begins with '[' or '{' in quotes"),
    (r"found character .* that cannot start any token", "text cannot begin with this character; put it in quotes"),
    (r"expected a mapping or list of mappings for merging", "'<<' merges mappings only"),
    (
        r"while scanning an? (anchor|alias)",
        "text that begins with '*' or '&' is read as an alias or anchor; put it in quotes",
    ),
)


def _explained(broken: yaml.MarkedYAMLError, text: str) -> str:
    problem = str(broken.problem or broken.context or "cannot be read")
    # A quote or a bracket that is not closed begins where its context does.
    unclosed = "end of stream" in problem or "<stream end>" in problem
    mark = (broken.context_mark if unclosed and broken.context_mark else None) or broken.problem_mark
    where = f"line {mark.line + 1}: " if mark else ""
    words = f"{broken.context or ''} {problem}"
    advice = next((advice for pattern, advice in _ADVICE if re.search(pattern, words)), "")
    if "mapping values" in problem and mark and text.splitlines()[mark.line].startswith("\t"):
        advice = _ADVICE[0][1]
    return f"{where}{advice or problem}"
