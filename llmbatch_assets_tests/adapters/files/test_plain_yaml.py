"""YAML that expands, nests or breaks off ends in one message with its line, within a second."""

from __future__ import annotations

import itertools
import time

import pytest

from llmbatch_assets.adapters.files.plain_yaml import MAX_BYTES, MAX_DEPTH, MAX_VALUES, YamlMistakeError, parse_yaml


def bomb(first: str, then: str, levels: int = 9) -> str:
    """Levels of which each repeats the one before nine times."""
    names = "abcdefghijklmnop"[: levels + 1]
    lines = [
        f"{name}: &{name} {then.format(','.join([f'*{before}'] * 9))}" for before, name in itertools.pairwise(names)
    ]
    return "\n".join([f"a: &a {first}", *lines])


def refused(text: str) -> str:
    started = time.process_time()
    with pytest.raises(YamlMistakeError) as refusal:
        parse_yaml(text)
    # About a tenth of this on an idle machine.
    assert time.process_time() - started < 10
    return str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Billions of values in a few lines: lists, mappings, merged mappings, and as keys.
        (bomb("[x, x, x, x, x, x, x, x, x]", "[{}]"), "line 5: aliases (*name) repeat more than"),
        (bomb("{x: 1}", "{{u: [{}]}}"), "aliases (*name) repeat more than"),
        (bomb("{x: 1, y: 2}", "{{<<: [{}]}}"), "aliases (*name) repeat more than"),
        (bomb("[x, x]", "{{? [{}] : 1}}"), "aliases (*name) repeat more than"),
        ("a: &a {b: *a}", "line 1: an anchor is used within its own value"),
        ("a: &a [*a]", "line 1: an anchor is used within its own value"),
        # Deep, long and large.
        ("a: " + "[" * 3_000, f"line 1: nested more than {MAX_DEPTH} levels deep"),
        ("a: " + "{a: " * 3_000, f"line 1: nested more than {MAX_DEPTH} levels deep"),
        ("\n".join(f"{' ' * level}a:" for level in range(300)), f"line {MAX_DEPTH}: nested more than"),
        ("- " * 300, "nested more than"),
        ("a: [" + "1," * MAX_VALUES + "1]", f"more than {MAX_VALUES:,} values"),
        ("\n".join(f"k{number}: {number}" for number in range(MAX_VALUES)), f"more than {MAX_VALUES:,} values"),
        ("a" * (MAX_BYTES + 1), "larger than 1 MB"),
        # Repeated keys.
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is written twice"),
        ("a:\n  - {b: 1, b: 2}", "line 2: the key 'b' is written twice"),
        # Indentation.
        ("llm:\n\tseed: 1\n", "not valid YAML: line 2: a tab; use spaces to indent"),
        ("llm:\n  seed: 1\n\tmodel: 2\n", "not valid YAML: line 3: a tab; use spaces to indent"),
        ("llm:\n  seed: 1\n model: 2\n", "line 3: this line is indented differently from the lines of its block"),
        ("llm:\n  seed: 1\n   model: 2\n", "line 3: a key or ':' is not allowed here; check the indentation"),
        ("llm: 1\n- a\n", "line 2: a list item where a key is expected; check the indentation"),
        # Quotes and brackets.
        (
            "run:\n  name: a: b\n",
            "line 2: a key or ':' is not allowed here; check the indentation, and put text that contains ': '",
        ),
        ("llm: [1, 2", "line 1: a bracket is not closed"),
        ("llm:\n  a: 'x\n  b: 1\n", "line 2: a quote is not closed"),
        ('a: "C:\\x\\data"', "line 1: in double quotes, write a backslash twice; or use single quotes"),
        ("a: {b} c", "line 1: text after a closing quote or bracket; put the whole text in quotes"),
        ("a: **b**", "line 1: text that begins with '*' or '&' is read as an alias or anchor; put it in quotes"),
        ("a: *b", "line 1: text that begins with '*' is read as an alias; put it in quotes"),
        ("a: !b c", "line 1: a tag ('!...') is not supported; put text with '!' in quotes"),
        ("a: !!python/object/apply:os.system [id]", "line 1: a tag ('!...') is not supported"),
        ("a: @b", "line 1: text cannot begin with this character; put it in quotes"),
        ("a: `b`", "line 1: text cannot begin with this character; put it in quotes"),
        ("[a]: 1", "line 1: a key must be text"),
        ("a: {<<: 1}", "line 1: '<<' merges mappings only"),
        # Others.
        ("a: 1\n---\nb: 1", "line 2: a second document begins ('---'); keep one document in a file"),
        ("a: 2026-02-30", "day is out of range for month; put a text that looks like a date in quotes"),
        ("a: 1\nb: \x01", "line 2: the character U+0001 is not allowed; delete it"),
    ],
)
def test_what_is_wrong_is_one_message(text: str, message: str) -> None:
    assert message in refused(text)
    assert "\n" not in refused(text)


def test_anchors_and_merge_keys_do_what_yaml_says() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": [{"x": 1, "y": 2}, {"x": 1, "y": 2}],
    }


def test_files_of_an_ordinary_size_are_read() -> None:
    columns = [f"column {number}" for number in range(MAX_VALUES // 2)]
    assert parse_yaml("a: [" + ", ".join(columns) + "]") == {"a": columns}
    prompt = "words of a long prompt\n" * (MAX_BYTES // 30)
    assert parse_yaml("user: |\n" + "".join(f"  {line}\n" for line in prompt.splitlines())) == {"user": prompt}
