"""Ids: equal requests share one, different requests never do, and none may change between releases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.configuration.model_blocks import LOCAL_MODEL
from llmbatch_assets.domain.items.identity import (
    IDENTITY_VERSION,
    partition_key,
    request_settings,
    work_id,
)
from llmbatch_assets_tests.domain.strategies import make_identity, parameters, quick

ITEM = "9f06640aaa0c3d36" + "0" * 24
WORK_PARTS: dict[str, Any] = {
    "mode": "row_wise",
    "group_key": "red",
    "context": "text",
    "context_id": "c" * 40,
    "ordinal": 0,
}


# Outputs that people paid for are found by these. A change here is a new IDENTITY_VERSION.
def test_ids_are_a_contract() -> None:
    assert IDENTITY_VERSION == 1
    assert work_id(**WORK_PARTS) == "7297e4a779c2002384dc8895a4b3ca58a110128a"
    assert work_id("group_output", None, "", None, 3) == "f655421a2984ea96c9a95bb55bd0c9d2b7f11c3e"
    identity = make_identity()
    assert identity.cache_id(ITEM) == "5a54fc5d65ca38895b1c01ad10ed6a401c54e032"
    assert identity.generation_id(ITEM) == "20ec2661e6a216610ffaf1944072e7b7281283fb"
    unjudged = make_identity(judge_enabled=False, judge_prompt_sha=None, judge=None, temperature=None)
    assert unjudged.cache_id(ITEM) == "22b76d401030d07c65d2d7a2e206ea91911197da"


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "group_output"},
        {"group_key": "blue"},
        {"group_key": None},
        {"group_key": ""},
        {"context": "text "},
        {"context_id": "d" * 40},
        {"context_id": None},
        {"ordinal": 1},
        # Swapped values.
        {"group_key": "text", "context": "red"},
        {"group_key": "redtext", "context": ""},
    ],
)
def test_every_part_of_an_item_is_in_its_id(changes: dict[str, Any]) -> None:
    assert work_id(**WORK_PARTS | changes) != work_id(**WORK_PARTS)


ALL_PARTS: list[dict[str, Any]] = [
    {"prompt_sha": "q" * 40},
    {"schema_sha": "t" * 40},
    {"model_name": "test-model-2"},
    {"temperature": 0.6},
    {"temperature": None},
    {"settings": {"seed": 0}},
    {"settings": {"seed": 1}},
    {"settings": {"top_p": 1}},
    {"settings": {"extra_body": {"a": {"b": [1]}}}},
]
JUDGE_PARTS: list[dict[str, Any]] = [
    {"judge_enabled": False},
    {"judge_prompt_sha": "k" * 40},
    {"judge_prompt_sha": None},
    {"judge": {"model_name": "other"}},
    {"judge": None},
]


@pytest.mark.parametrize("changes", ALL_PARTS + JUDGE_PARTS)
def test_every_part_of_a_request_is_in_its_cache_id(changes: dict[str, Any]) -> None:
    assert make_identity(**changes).cache_id(ITEM) != make_identity().cache_id(ITEM)


def test_no_two_changes_give_the_same_request() -> None:
    assert len({make_identity(**changes).cache_id(ITEM) for changes in ALL_PARTS + JUDGE_PARTS}) == 14


@pytest.mark.parametrize("changes", ALL_PARTS)
def test_what_changes_the_generation_changes_its_id(changes: dict[str, Any]) -> None:
    assert make_identity(**changes).generation_id(ITEM) != make_identity().generation_id(ITEM)


@pytest.mark.parametrize("changes", JUDGE_PARTS)
def test_another_judge_does_not_change_the_generation_id(changes: dict[str, Any]) -> None:
    assert make_identity(**changes).generation_id(ITEM) == make_identity().generation_id(ITEM)


def test_another_item_has_another_id_with_the_same_settings() -> None:
    identity, other = make_identity(), "1" * 40
    assert identity.cache_id(ITEM) != identity.cache_id(other)
    assert identity.generation_id(ITEM) != identity.generation_id(other)
    assert ITEM not in str(identity.parts(""))


def test_the_named_parts_are_those_in_an_artifact() -> None:
    assert make_identity(settings={"seed": 7}).parts(ITEM) == {
        "scheme": 1,
        "work_id": ITEM,
        "prompt_sha": "p" * 40,
        "schema_sha": "s" * 40,
        "model_name": "test-model",
        "temperature": 0.5,
        "seed": 7,
        "judge_enabled": True,
        "judge_prompt_sha": "j" * 40,
        "judge": {"model_name": "test-judge"},
    }


@pytest.mark.parametrize(
    ("llm", "parts"),
    [
        # Unset settings are left out, so that adding one does not change existing ids.
        ({}, {}),
        ({"base_url": "http://a/v1"}, {"base_url": "http://a/v1"}),
        # However it is written, also as that which is called if none is set.
        ({"base_url": "HTTP://A:80/v1/"}, {"base_url": "http://a/v1"}),
        ({"base_url": "https://api.openai.com/v1/"}, {}),
        (
            {"base_url": "https://api.openai.com/v1", "model_name": "gemini-2"},
            {"base_url": "https://api.openai.com/v1"},
        ),
        ({"base_url": "https://generativelanguage.googleapis.com/v1beta/openai", "model_name": "gemini-2"}, {}),
        ({"seed": 0}, {"seed": 0}),
        ({"top_p": 0.5, "max_output_tokens": 9}, {"top_p": 0.5, "max_output_tokens": 9}),
        ({"extra_body": {"a": 1}}, {"extra_body": {"a": 1}}),
        ({"structured_output": "prompt"}, {"structured_output": "prompt"}),
        # Another provider gives other answers; the address of its server does not matter.
        ({"provider": "local", "model_name": LOCAL_MODEL}, {"provider": "local"}),
        ({"provider": "offline"}, {"provider": "offline"}),
        # Timeouts, keys and rates do not change a request.
        (
            {
                "api_key_env": "A",
                "api_key_header": "x-api-key",
                "timeout_sec": 1,
                "max_workers": 1,
                "max_retries": 9,
                "transport_retries": 0,
            },
            {},
        ),
        ({"runner_max_retries": 9, "silence_client_lv_logs": False}, {}),
    ],
)
def test_settings_are_part_of_the_id_if_they_change_the_request(llm: dict[str, Any], parts: dict[str, Any]) -> None:
    assert request_settings(parameters(llm=llm).llm) == parts


@pytest.mark.parametrize(
    ("earlier", "same"),
    [
        ({"settings": {"base_url": "http://a/v1/", "seed": 1}}, True),
        ({"settings": {"base_url": "HTTP://A:80/v1", "seed": 1}}, True),
        ({"settings": {"base_url": "http://a/v1", "seed": 1}, "judge": {"base_url": "http://a/v1/"}}, False),
        ({"settings": {"base_url": "http://a/v1/", "seed": 2}}, False),
        ({"settings": {"base_url": "http://b/v1", "seed": 1}}, False),
        ({"settings": {"base_url": "http://a:99999/v1", "seed": 1}}, False),
        ({"settings": {"seed": 1}}, False),
    ],
)
def test_an_earlier_spelling_of_an_address_stands_for_the_same_requests(earlier: dict[str, Any], same: bool) -> None:
    now = make_identity(settings={"base_url": "http://a/v1", "seed": 1})
    assert now.asks_the_same(make_identity(**earlier)) is same


def test_an_earlier_spelling_of_the_judges_address_stands_for_the_same_requests() -> None:
    def judged(base_url: str) -> Any:
        return make_identity(judge={"model_name": "j", "base_url": base_url})

    assert judged("http://a/v1/").asks_the_same(judged("http://a/v1"))
    assert not judged("http://a/v1/").asks_the_same(judged("http://a/v2"))
    assert judged("https://api.openai.com/v1/").asks_the_same(make_identity(judge={"model_name": "j"}))


def test_a_partition_is_named_by_its_label_and_the_beginning_of_its_id() -> None:
    assert partition_key("Data Scientist", ITEM) == "data-scientist-9f06640aaa0c3d36"
    assert partition_key(", ;", ITEM) == ITEM


@quick
@given(st.text())
def test_no_label_makes_a_partition_key_that_dagster_refuses(label: str) -> None:
    key = partition_key(label, ITEM)
    assert "," not in key
    assert "..." not in key
    assert key == key.strip()
    assert ITEM[:16] in key


def test_a_changed_copy_has_its_own_ids() -> None:
    # The cached properties of the original were once copied.
    identity = make_identity()
    before = identity.cache_id(ITEM)
    changed = identity.model_copy(update={"model_name": "another"})
    assert changed.cache_id(ITEM) == make_identity(model_name="another").cache_id(ITEM) != before


def test_the_differences_between_two_identities_are_named() -> None:
    now = make_identity()
    then = make_identity(prompt_sha="q", model_name="m", settings={"top_p": 0.5, "seed": 1})
    assert then.differences(now) == ["generation prompt", "model", "seed", "top_p"]
    assert now.differences(now) == []
