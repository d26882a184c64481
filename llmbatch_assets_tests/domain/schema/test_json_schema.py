"""The schema sent to the provider, the one shown in prompts and the validation all agree."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.adapters.schema_module import load_source
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.domain.schema.json_schema import LARGEST_INLINED, inline_definitions, strict_form
from llmbatch_assets.errors import AnswerError
from llmbatch_assets_tests.domain.strategies import JSON, quick
from llmbatch_assets_tests.schema_corpus import LEGITIMATE, Module
from llmbatch_assets_tests.schema_corpus.strategies import DrawnModule, modules, spoilt

HEAD = """from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

"""
# What OpenAI's guide to structured outputs lists, and nothing else.
KNOWN_TO_OPENAI = {
    *("type", "enum", "anyOf", "$ref", "$defs", "description", "properties", "required", "additionalProperties"),
    *("items", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems"),
}
TOLD = {
    "minLength": r"\bat least (\d+) characters",
    "maxLength": r"\bat most (\d+) characters",
    "uniqueItems": r"\bno item (twice)",
}
# Whole numbers with a decimal point are left to the table of differences.
VALUES = JSON | st.floats(-99, 99).filter(lambda number: not number.is_integer())


def contract_of(fields: str, before: str = "") -> Contract:
    """The contract of an ``LLMOutput`` with these lines in its class."""
    body = "".join(f"    {line}\n" for line in fields.splitlines())
    return load_source(f"{HEAD}{before}class LLMOutput(BaseModel):\n{body}", "s.py").output()


# The independent judge.


def _at_the_very_end(
    _validator: Any, pattern: str, instance: Any, _schema: Any
) -> Iterator[jsonschema.ValidationError]:
    # In JSON Schema, $ matches only the end of the text; in Python, also before a final line break.
    if isinstance(instance, str) and not re.search(pattern.replace("$", r"\Z"), instance):
        yield jsonschema.ValidationError(f"no match of {pattern}")


JUDGE = jsonschema.validators.extend(  # type: ignore[no-untyped-call]  # the library has no types for it
    jsonschema.Draft202012Validator, {"pattern": _at_the_very_end}
)


def json_schema_takes(schema: dict[str, Any], answer: Any) -> bool:
    return bool(JUDGE(schema).is_valid(answer))


def contract_takes(contract: Contract, answer: dict[str, Any]) -> bool:
    try:
        contract.validate(answer)
    except AnswerError:
        return False
    return True


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """The schemas in a schema, itself included."""
    if not isinstance(schema, dict):
        return
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), schema.get("items")]
    for part in [*inner, schema.get("additionalProperties"), *schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        yield from nodes(part)


def changed(schema: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """A copy with each schema in it changed."""
    changed_one = copy.deepcopy(schema)
    for node in list(nodes(changed_one)):
        change(node)
    return changed_one


def require_all(node: dict[str, Any]) -> None:
    if "properties" in node:
        node["required"] = list(node["properties"])


def heed_what_is_told(node: dict[str, Any]) -> None:
    """Turn the words of a description back into limits, as a reader would."""
    for keyword, words in TOLD.items():
        if found := re.search(words, node.get("description", "")):
            node[keyword] = True if found[1] == "twice" else int(found[1])


def assert_the_three_agree(contract: Contract, answer: dict[str, Any]) -> None:
    schema, strict = contract.json_schema, strict_form(contract.json_schema)
    assert contract_takes(contract, answer) == json_schema_takes(schema, answer)
    if strict is None:
        return
    heeded = json_schema_takes(changed(strict, heed_what_is_told), answer)
    # The strict form is the same schema with all fields required: what keeps it keeps the contract.
    assert heeded == json_schema_takes(changed(schema, require_all), answer)
    assert contract_takes(contract, answer) or not heeded


@quick
@given(data=st.data())
def test_an_answer_that_one_of_the_three_accepts_is_accepted_by_all(data: st.DataObject) -> None:
    drawn: DrawnModule = data.draw(modules(full=False))
    contract = load_source(drawn.source, "s.py").output()

    assert contract_takes(contract, drawn.answer)
    assert_the_three_agree(contract, drawn.answer)
    for _ in range(4):
        assert_the_three_agree(contract, data.draw(spoilt(drawn.answer, VALUES)))


@quick
@given(modules(full=True))
def test_a_matching_answer_is_accepted_by_all_three_for_every_type(drawn: DrawnModule) -> None:
    contract = load_source(drawn.source, "s.py").output()

    assert contract_takes(contract, drawn.answer)
    assert_the_three_agree(contract, drawn.answer)


LIMITS = """
kind: Literal["a", "b"] = Field(description="Which.")
name: str = Field(min_length=2, max_length=4, description="A name.")
code: Annotated[str, StringConstraints(pattern="^[A-Z]{2}$")]
count: int = Field(ge=1, lt=5)
share: Annotated[float, Field(gt=0, le=1)] | None
steps: list[Annotated[int, Field(multiple_of=3)]] = Field(min_length=1, max_length=2)
part: Part
note: str = ""
"""
PART = 'class Part(BaseModel):\n    mood: Mood\n    sure: bool\n\n\nclass Mood(str, Enum):\n    A = "calm"\n    B = "brisk"\n\n\n'
GOOD = {
    "kind": "a",
    "name": "abc",
    "code": "AB",
    "count": 1,
    "share": 0.5,
    "steps": [3],
    "part": {"mood": "calm", "sure": True},
    "note": "",
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        # Limits, at both ends.
        *({"name": name} for name in ("", "a", "ab", "abcd", "abcde", "éé", 3, None)),
        *({"count": count} for count in (0, 1, 4, 5, -1, 1.5, True, "1")),
        *({"code": code} for code in ("AB", "ab", "ABC", "AB\n")),
        *({"steps": steps} for steps in ([], [3], [3, 6], [3, 6, 9], [4], ["3"], None)),
        *({"share": share} for share in (None, 1, 0.25, 0, 1.25, "0.5", False)),
        # Choices.
        *({"kind": kind} for kind in ("b", "c", "", None, ["a"])),
        *({"part": {"mood": mood, "sure": True}} for mood in ("brisk", "loud", None)),
        # Fields too few and too many.
        {"part": {"mood": "calm"}},
        {"part": {"mood": "calm", "sure": True, "more": 1}},
        {"more": 1},
        *({name: None} for name in GOOD),
    ],
    ids=repr,
)
def test_the_three_agree_at_every_limit(changes: dict[str, Any]) -> None:
    contract = contract_of(LIMITS.strip(), PART)
    assert strict_form(contract.json_schema) is not None
    assert contract_takes(contract, GOOD)

    assert_the_three_agree(contract, GOOD | changes)
    for name in changes:
        assert_the_three_agree(contract, {key: value for key, value in (GOOD | changes).items() if key != name})


@pytest.mark.parametrize(
    ("fields", "value", "of_json_schema", "of_contract"),
    [
        # To JSON Schema, 1.0 is an integer; to strict validation it is not.
        ("a: int", 1.0, True, False),
        # Formats are annotations in JSON Schema; validation parses the text.
        ("a: date", "tomorrow", True, False),
        ("a: timedelta", "soon", True, False),
        # JSON Schema has no limits for a decimal that is written as a string.
        ("a: Decimal", "much", True, False),
        ("a: Annotated[Decimal, Field(le=1)]", "2", True, False),
        # Keys in JSON are strings.
        ("a: dict[int, str]", {"one": "x"}, True, False),
        # Spaces are stripped before the length is checked.
        ("a: Annotated[str, StringConstraints(strip_whitespace=True, min_length=2)]", " a ", True, False),
        # Binary fractions are not exact tenths; validation allows for that.
        ("a: Annotated[float, Field(multiple_of=0.1)]", 0.3, False, True),
        # A set keeps one of each.
        ("a: set[int]", [1, 1], False, True),
        # To Python, true is 1.
        ("a: Literal[1, 2]", True, False, True),
        # An alias applies only if requested.
        ('model_config = ConfigDict(populate_by_name=True)\na: int = Field(alias="b")', 1, False, True),
    ],
)
def test_where_json_schema_and_pydantic_differ_by_nature(
    fields: str, value: Any, of_json_schema: bool, of_contract: bool
) -> None:
    contract = contract_of(fields)
    found = (json_schema_takes(contract.json_schema, {"a": value}), contract_takes(contract, {"a": value}))
    assert found == (of_json_schema, of_contract)


# The strict form.


@pytest.mark.parametrize("module", LEGITIMATE, ids=repr)
def test_the_strict_form_contains_only_supported_keywords(module: Module) -> None:
    contract = load_source(module.source.decode().removeprefix("\ufeff"), "s.py").output()
    strict = strict_form(contract.json_schema)

    for node in nodes(strict):
        assert set(node) <= KNOWN_TO_OPENAI
        assert set(node) == {"$ref"} or "$ref" not in node
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert sorted(node["required"]) == sorted(node["properties"])


def test_most_of_the_corpus_has_a_strict_form() -> None:
    contracts = [load_source(module.source.decode().removeprefix("\ufeff"), "s.py").output() for module in LEGITIMATE]
    without = [contract for contract in contracts if strict_form(contract.json_schema) is None]
    assert 0 < len(without) < len(contracts) / 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # Keywords that limit nothing are dropped.
        ('a: str = Field("x", title="T", examples=["y"])', {"type": "string"}),
        ('a: str = Field(json_schema_extra={"x-unit": "kg"})', {"type": "string"}),
        ("a: str = Field(deprecated=True)", {"type": "string"}),
        # Limits are added to the description.
        ("a: str = Field(max_length=9)", {"type": "string", "description": "(at most 9 characters)"}),
        (
            'a: str = Field(min_length=1, max_length=9, description="A.")',
            {"type": "string", "description": "A. (at least 1 characters, at most 9 characters)"},
        ),
        ("a: set[int]", {"type": "array", "items": {"type": "integer"}, "description": "(no item twice)"}),
        # Supported keywords are kept.
        (
            "a: int = Field(ge=0, lt=9, multiple_of=3)",
            {"type": "integer", "minimum": 0, "exclusiveMaximum": 9, "multipleOf": 3},
        ),
        ('a: str = Field(pattern="^a$")', {"type": "string", "pattern": "^a$"}),
        ("a: date", {"type": "string", "format": "date"}),
        ("a: list[bool] = Field(max_length=2)", {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}),
        # Keywords with another name.
        ('a: Literal["x"]', {"type": "string", "enum": ["x"]}),
        ('a: Literal["x"] | None = None', {"anyOf": [{"type": "string", "enum": ["x"]}, {"type": "null"}]}),
        # Schemas without a strict form.
        *((f"a: {kind}", None) for kind in ("dict", "dict[str, int]", "list", "Any", "tuple[int, str]", "dict | None")),
    ],
)
def test_a_field_is_put_into_the_strict_form(fields: str, expected: dict[str, Any] | None) -> None:
    strict = strict_form(contract_of(fields).json_schema)
    assert (strict and strict["properties"]["a"]) == expected


@pytest.mark.parametrize(
    "schema",
    [
        # Limits that only a trusted module can write.
        {"type": "string", "not": {"const": "x"}},
        {"anyOf": [{"type": "string"}], "oneOf": [{"type": "null"}]},
        {"type": "array", "items": {"type": "string"}, "contains": {"const": "x"}},
        # Objects that others may extend.
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}, "additionalProperties": True},
        {},
    ],
    ids=repr,
)
def test_a_schema_that_the_strict_form_would_loosen_has_none(schema: dict[str, Any]) -> None:
    assert strict_form(schema) is None


def test_a_description_next_to_a_reference_is_kept_where_openai_accepts_it() -> None:
    # OpenAI: "$ref cannot have keywords {'description'}".
    contract = contract_of("again: LLMOutput | None = None")
    schema = {**contract.json_schema, "properties": {"next": {"$ref": "#/$defs/LLMOutput", "description": "More."}}}
    strict = strict_form(schema)
    assert strict is not None
    assert strict["properties"]["next"] == {"anyOf": [{"$ref": "#/$defs/LLMOutput"}], "description": "More."}


def test_the_schema_itself_is_not_changed() -> None:
    schema = contract_of(LIMITS.strip(), PART).json_schema
    before = json.dumps(schema)
    strict_form(schema)
    assert json.dumps(schema) == before


# Inlined definitions.


def test_definitions_are_inlined_and_the_description_of_the_field_is_kept() -> None:
    schema = contract_of('part: Part = Field(description="The first.")\nothers: list[Part]', PART).json_schema
    assert "$defs" not in schema
    assert "$ref" not in json.dumps(schema)
    assert schema["properties"]["part"]["description"] == "The first."
    assert schema["properties"]["others"]["items"]["properties"]["mood"]["enum"] == ["calm", "brisk"]


def test_a_recursive_model_keeps_its_definition_and_still_validates() -> None:
    contract = contract_of("name: str\nparts: list['LLMOutput'] = Field(default_factory=list)")
    assert set(contract.json_schema["$defs"]) == {"LLMOutput"}
    assert contract.json_schema["type"] == "object"
    for answer in ({"name": "a", "parts": [{"name": "b"}]}, {"name": "a", "parts": [{"parts": []}]}):
        assert_the_three_agree(contract, answer)


def test_models_that_use_each_other_many_times_do_not_flood_the_prompt() -> None:
    # Inlined at each use, ten levels of four would be a million definitions.
    levels = "".join(
        f"class L{level}(BaseModel):\n" + "".join(f"    f{field}: list[L{level + 1}]\n" for field in range(4)) + "\n\n"
        for level in range(10)
    )
    contract = contract_of("top: L0", f"{levels}class L10(BaseModel):\n    end: str\n\n\n")
    assert len(contract.text) < 200 * LARGEST_INLINED
    assert contract.json_schema["$defs"]


@pytest.mark.parametrize(
    "fields",
    [
        # A default or an example that looks like a reference used to raise a KeyError.
        'a: dict = Field(default_factory=dict, examples=[{"$ref": "#/$defs/Nothing"}])',
        'a: dict = Field(default_factory=dict, examples=[{"properties": {"$ref": "x"}, "anyOf": [{"$ref": "y"}]}])',
        'a: dict = {"anyOf": {"items": "x"}, "discriminator": {"propertyName": "p", "mapping": {}}}',
    ],
)
def test_data_in_a_schema_is_not_taken_for_schema(fields: str) -> None:
    contract = contract_of(fields)
    assert contract.json_schema["properties"] == contract.model.model_json_schema()["properties"]
    assert contract_takes(contract, {})


@pytest.mark.parametrize("name", ["items", "properties", "anyOf", "required", "const", "discriminator", "default"])
def test_a_field_named_like_a_keyword_is_a_field(name: str) -> None:
    contract = contract_of(f"{name}: Part", PART)
    assert set(contract.json_schema["properties"]) == {name}
    assert contract.requires_all
    values: list[Any] = [{"mood": "calm", "sure": True}, {"mood": "calm"}, []]
    for value in values:
        assert_the_three_agree(contract, {name: value})


def test_a_schema_without_definitions_is_left_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert inline_definitions(schema) == schema
