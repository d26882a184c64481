"""A mistake in a key or value says what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llmbatch_assets.domain.configuration.environment import Resolved
from llmbatch_assets.domain.configuration.key_mistakes import parameter_mistakes, prompt_mistakes, secret_mistakes
from llmbatch_assets.domain.configuration.parameters import read_parameters
from llmbatch_assets.domain.prompt import PromptTemplate

KEY = "sk-proj-abcDEF0123456789abcDEF0123456789"


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        # Keys in the wrong block.
        ({"model_name": "x"}, "model_name: unknown key here; it belongs under llm (llm.model_name)"),
        ({"csv_path": "x"}, "csv_path: unknown key here; it belongs under outputs (outputs.csv_path)"),
        ({"llm": {"min_score": 1}}, "llm.min_score: unknown key here; it belongs under judge (judge.min_score)"),
        (
            {"llm": {"outputs": {}}},
            "llm.outputs: unknown key here; outputs is a block of its own: write it without indentation",
        ),
        (
            {"run": {"exclude": []}},
            "run.exclude: unknown key here; it belongs under context.columns (context.columns.exclude)",
        ),
        (
            {"run": {"mode": "x"}},
            "run.mode: unknown key here; it belongs in another block: grouping.mode, context.columns.mode",
        ),
        # Misspelt keys.
        ({"lmm": {}}, "lmm: unknown key; did you mean llm?"),
        ({"budget": {"max_cost": 1}}, "budget.max_cost: unknown key; did you mean max_cost_usd?"),
        # Nothing where a value belongs.
        (
            {"llm": {"max_workers": None}},
            "llm.max_workers: has no value; write one, or delete the line; the default is 8",
        ),
        ({"outputs": {"formats": None}}, "outputs.formats: has no value; write one, or delete the line"),
        # Values of another kind.
        ({"outputs": {"formats": "csv"}}, "outputs.formats: must be a list; write [csv] (found 'csv')"),
        ({"input": {"required_columns": "id"}}, "input.required_columns: must be a list; write [id] (found 'id')"),
        ({"llm": {"model_name": 4}}, "llm.model_name: must be text; put it in quotes: '4' (found '4')"),
        ({"run": {"name": True}}, "run.name: must be text; put it in quotes: 'true' (found 'True')"),
        ({"llm": {"max_workers": "8"}}, "llm.max_workers: must be a whole number; write it without quotes (found '8')"),
        ({"llm": {"max_workers": "many"}}, "llm.max_workers: must be a whole number (found 'many')"),
        ({"llm": {"max_workers": 2.5}}, "llm.max_workers: must be a whole number (found '2.5')"),
        ({"llm": {"temperature": "hot"}}, "llm.temperature: must be a number (found 'hot')"),
        ({"input": {"sheet": [1]}}, "input.sheet: must be text or a whole number (found '[1]')"),
        ({"cache": {"enabled": "maybe"}}, "cache.enabled: must be true or false (found 'maybe')"),
        ({"llm": "x"}, "llm: must be a mapping of keys to values (found 'x')"),
        # Values out of range.
        ({"llm": {"temperature": 9}}, "llm.temperature: must be at most 2 (found '9')"),
        ({"llm": {"timeout_sec": 0}}, "llm.timeout_sec: must be greater than 0 (found '0')"),
        ({"llm": {"max_workers": 0}}, "llm.max_workers: must be at least 1 (found '0')"),
        (
            {"run": {"log_level": "info"}},
            "run.log_level: must be DEBUG, INFO, WARNING or ERROR; did you mean INFO? (found 'info')",
        ),
        ({"outputs": {"formats": ["CSV"]}}, "did you mean csv? (found 'CSV')"),
        ({"llm": {"model_name": ""}}, "llm.model_name: must not be empty (found '')"),
        # Keys of the provider are not repeated.
        ({"llm": {"max_workers": KEY}}, "llm.max_workers: must be a whole number (found '[key]')"),
        ({"outputs": {"formats": KEY}}, "outputs.formats: must be a list; write [[key]] (found '[key]')"),
        ({KEY: 1}, "[key]: unknown key; known keys: run, input"),
    ],
)
def test_a_mistake_says_what_to_write(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read_parameters(mapping)
    (line,) = parameter_mistakes(refused.value, "c.yaml")
    assert line.startswith("c.yaml: ")
    assert message in line
    assert KEY not in line


def test_what_looks_like_a_key_is_named_by_its_place() -> None:
    resolved = Resolved({"llm": {"extra_body": {"note": KEY, "list": ["a", KEY]}, KEY: 1}}, {}, {})
    told = secret_mistakes(resolved, "c.yaml")
    assert [line.split(": ")[1] for line in told] == ["llm.extra_body.note", "llm.extra_body.list.1", "llm.[key]"]
    assert all("set llm.api_key_env to its name" in line and KEY not in line for line in told)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"user": "a", "systm": "b"},
            "systm: unknown key; did you mean system? known keys: name, version, purpose, system",
        ),
        ({"User": "a"}, "User: unknown key; did you mean user?"),
        ({"system": "a"}, "user: is required; known keys: name, version"),
        ({"user": None}, "user: has no text; write it, or delete the line"),
        ({"user": ""}, "user: has no text; write it, or delete the line"),
        ({"user": {"context": None}}, "user: must be text; put a placeholder in quotes: '{context}'"),
        ({"user": 4}, "user: must be text; put it in quotes"),
        ({"user": ["a"]}, "user: must be text"),
        (
            {"user": "a", "examples": [{"user": "q", "output": "x"}]},
            "examples.0.output: unknown key; known keys: user, assistant",
        ),
        (
            {"user": "a", "examples": {"user": "q"}},
            "examples: must be a list of examples, each with user and assistant",
        ),
        ({"user": "a", "examples": "q"}, "examples: must be a list of examples, each with user and assistant"),
    ],
)
def test_a_mistake_in_a_prompt_says_what_to_write(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        PromptTemplate.model_validate({**mapping, "path": "p.yaml"})
    assert any(message in line for line in prompt_mistakes(refused.value, "p.yaml"))
