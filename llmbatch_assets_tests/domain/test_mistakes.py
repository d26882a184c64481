"""Mistakes in the user's files: all of them, with their place, and never a secret."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llmbatch_assets.domain.configuration.key_mistakes import parameter_mistakes
from llmbatch_assets.domain.configuration.parameters import read_parameters
from llmbatch_assets_tests.domain.configuration.test_parameters import BLOCKS, PASTED_KEYS, nested
from llmbatch_assets_tests.domain.strategies import quick


def mistakes(content: dict[str, Any]) -> list[str]:
    """Return the messages for a file with this content."""
    try:
        read_parameters(content)
    except ValidationError as problem:
        return parameter_mistakes(problem, "configs/x.yaml")
    return []


@pytest.mark.parametrize("key", PASTED_KEYS)
@pytest.mark.parametrize(
    "place", ["llm.api_key_env", "judge.api_key_env", "llm.api_key", "judge.api_key", "llm.openai_api_key", "api_key"]
)
def test_a_pasted_key_is_never_echoed(place: str, key: str) -> None:
    reported = mistakes(nested(place, key))
    assert key not in "\n".join(reported)
    assert key[8:] not in "\n".join(reported)


@quick
@given(st.text(min_size=12, max_size=60))
def test_no_value_of_a_key_field_is_ever_echoed(value: str) -> None:
    reported = mistakes({"llm": {"api_key_env": value, "api_key": value, "max_workers": 0}})
    assert len(reported) >= 2
    assert value not in "\n".join(reported)


def test_a_key_in_the_file_is_refused_with_the_place_where_it_belongs() -> None:
    (reported,) = mistakes({"llm": {"api_key": "sk-secret"}})
    assert reported.startswith("configs/x.yaml: llm.api_key: ")
    assert "environment variable" in reported
    assert "llm.api_key_env" in reported


def test_all_mistakes_of_a_file_are_reported_together() -> None:
    reported = mistakes(
        {
            "llm": {"max_workers": 0, "temprature": 1, "provider": "gemini"},
            "context": {"columns": {"mode": "some"}},
            "grouping": {"enabled": True},
            "reports": {},
            "cache": "no",
        }
    )
    paths = {line.split(": ")[1] for line in reported}
    assert all(line.startswith("configs/x.yaml: ") for line in reported)
    assert paths == {
        "llm.max_workers",
        "llm.temprature",
        "llm.provider",
        "context.columns.mode",
        "grouping",
        "reports",
        "cache",
    }


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("llm.temprature", "temperature"),
        ("llm.modle_name", "model_name"),
        ("context.colums", "columns"),
        ("context.columns.exclud", "exclude"),
        ("prompts.judge.enable", "enabled"),
        ("grouping.max_row_per_group", "max_rows_per_group"),
        ("reports", "report"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_known_one(path: str, near: str) -> None:
    (reported,) = mistakes(nested(path, 1))
    assert reported.startswith(f"configs/x.yaml: {path}: unknown key; did you mean {near}")


def test_an_unknown_key_of_a_price_is_answered_like_any_other() -> None:
    # The model's name is a free key, and this ended in an AssertionError.
    (reported,) = mistakes(nested("budget.prices.gpt-4o", {"input": 1, "output": 2, "cached_inptu": 1}))
    assert reported == "configs/x.yaml: budget.prices.gpt-4o.cached_inptu: unknown key; did you mean cached_input?"


@pytest.mark.parametrize("block", BLOCKS)
def test_an_unknown_key_unlike_any_other_is_answered_with_all_known_ones(block: str) -> None:
    (reported,) = mistakes(nested(f"{block}.zzzz".lstrip("."), 1))
    assert reported.endswith(f"known keys: {', '.join(BLOCKS[block].model_fields)}")


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        # What is allowed, and what was found.
        ("llm.provider", "gemini", ["openai, local or offline", "found 'gemini'"]),
        ("llm.max_workers", 0, ["at least 1", "found '0'"]),
        ("llm.max_workers", "8", ["whole number", "found '8'"]),
        ("run.timezone", "Mars", ["Europe/Paris", "found 'Mars'"]),
        ("input.encoding", "utf-99", ["no such encoding", "found 'utf-99'"]),
        ("llm.api_key_env", "sk-abc", ["NAME of an environment variable"]),
        ("grouping.enabled", True, ["grouping.column must name a column"]),
        # A value where a block belongs.
        ("llm", "gpt-4o", ["must be a mapping"]),
        ("cache", ["enabled"], ["must be a mapping"]),
        # Keys that are often put into the wrong block.
        ("judge.enabled", True, ["use prompts.judge.enabled"]),
    ],
)
def test_a_mistake_says_what_is_allowed_and_what_was_found(path: str, value: Any, wanted: list[str]) -> None:
    (reported,) = mistakes(nested(path, value))
    assert [part for part in wanted if part not in reported] == []
    assert "Value error" not in reported


def test_a_long_value_is_shown_by_its_beginning() -> None:
    (reported,) = mistakes({"run": {"timezone": "x" * 5000}})
    assert len(reported) < 250
