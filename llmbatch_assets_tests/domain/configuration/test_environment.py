"""References to environment variables: each kind of key, what is no reference, and what a message may not show."""

from collections.abc import Mapping
from typing import Any

import pytest

from llmbatch_assets.domain.configuration.environment import resolve_environment
from llmbatch_assets.domain.configuration.parameters import Parameters, read_parameters


def read(mapping: dict[str, Any], **environment: str) -> Parameters:
    return read_parameters(resolve_environment(mapping, environment).mapping)


def value_at(parameters: Any, key: str) -> Any:
    for name in key.split("."):
        parameters = parameters[name] if isinstance(parameters, Mapping) else getattr(parameters, name)
    return parameters


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        # Text is never taken for a number.
        ("llm.model_name", "4", "4"),
        ("llm.model_name", "true", "true"),
        ("judge.model_name", "null", "null"),
        ("input.path", "data/tickets.csv", "data/tickets.csv"),
        ("llm.provider", "offline", "offline"),
        ("prompts.generation.path", "prompts/other.yaml", "prompts/other.yaml"),
        ("outputs.explode.list", "", ""),
        # Numbers, true and false.
        ("llm.max_workers", "12", 12),
        ("llm.temperature", "0.5", 0.5),
        ("llm.temperature", "1", 1.0),
        ("llm.temperature", "null", None),
        ("llm.seed", "7", 7),
        ("prompts.judge.enabled", "true", True),
        ("budget.max_cost_usd", "2.5", 2.5),
        # A sheet is a name or a number.
        ("input.sheet", "2", 2),
        ("input.sheet", "Tickets", "Tickets"),
        # An old name of a key.
        ("report.sample_per_role", "3", None),
    ],
)
def test_a_value_comes_from_the_environment(key: str, text: str, value: Any) -> None:
    mapping: Any = {"env": "NAME"}
    for name in reversed(key.split(".")):
        mapping = {name: mapping}
    parameters = read(mapping, NAME=text)
    if key == "report.sample_per_role":
        key, value = "report.sample_per_group", 3
    assert value_at(parameters, key) == value
    assert type(value_at(parameters, key)) is type(value)


def test_values_inside_lists_and_prices_come_from_the_environment() -> None:
    parameters = read(
        {
            "input": {"required_columns": ["id", {"env": "COLUMN"}]},
            "budget": {"prices": {"m": {"input": {"env": "PRICE"}, "output": 2}, "env": {"input": 1, "output": 1}}},
        },
        COLUMN="text",
        PRICE="0.25",
    )
    assert parameters.input.required_columns == ("id", "text")
    assert parameters.budget.prices["m"].input == 0.25
    assert parameters.budget.prices["env"].output == 1


def test_the_body_of_a_request_is_sent_as_it_is_written() -> None:
    for body in ({"env": "PRODUCTION"}, {"metadata": {"env": "PRODUCTION"}}):
        assert read({"llm": {"extra_body": body}}, PRODUCTION="no").llm.extra_body == body


def test_a_variable_that_is_not_set_is_named_with_file_and_key() -> None:
    resolved = resolve_environment({"llm": {"model_name": {"env": "MODEL"}, "seed": {"env": "SEED"}}}, {"SEED": "1"})
    assert list(resolved.mistakes("p.yaml")) == [
        "p.yaml: llm.model_name: the environment variable MODEL is not set; set it, or write the value here"
    ]
    assert resolved.is_missing(("llm", "model_name", "str"))
    assert resolved.variable_at(("llm", "seed", "int")) == "SEED"
    assert not resolved.variable_at(("llm", "model_name"))


def test_a_variable_that_is_set_to_nothing_is_empty_text() -> None:
    assert read({"run": {"name": {"env": "NAME"}}}, NAME="").run.name == ""


def test_a_file_without_references_stays_the_same() -> None:
    mapping = {"llm": {"seed": 1, "extra_body": {"a": [1, {"b": None}]}}, "run": None, "unknown": {"x": {"env": "A"}}}
    assert resolve_environment(mapping, {}).mapping == mapping
