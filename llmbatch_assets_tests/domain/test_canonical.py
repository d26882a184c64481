"""One text per value, one hash per set of named parts."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given

from llmbatch_assets.domain.canonical import canonical_json, readable_json, sha1_named, sha1_text
from llmbatch_assets_tests.domain.strategies import JSON, quick


def test_neighbouring_parts_cannot_run_into_each_other() -> None:
    shas = {
        sha1_named(a="xy", b="z"),
        sha1_named(a="x", b="yz"),
        sha1_named(a="z", b="xy"),
        sha1_named(a="xy", c="z"),
        sha1_named(a="xy"),
        sha1_named(a="xy", b=None),
        sha1_named(a='xy","b":"z'),
    }
    assert len(shas) == 7


def test_the_hash_of_named_parts_is_that_of_their_canonical_json() -> None:
    expected = hashlib.sha1('{"a":[1,true,null],"b":"é"}'.encode(), usedforsecurity=False).hexdigest()
    assert sha1_named(b="é", a=[1, True, None]) == expected


def test_the_order_of_keys_does_not_change_the_text() -> None:
    assert canonical_json({"b": {"d": 1, "c": 2}, "a": 0}) == '{"a":0,"b":{"c":2,"d":1}}'
    assert sha1_named(a=1, b=2) == sha1_named(b=2, a=1)


def test_readable_json_keeps_the_order_of_keys_since_models_read_it() -> None:
    assert readable_json({"b": "é", "a": []}) == '{\n  "b": "é",\n  "a": []\n}'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        readable_json({"a": number})


@pytest.mark.parametrize(
    ("text", "sha"),
    [
        ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        # Other characters are hashed as UTF-8.
        ("é", "bf15be717ac1b080b4f1c456692825891ff5073d"),
    ],
)
def test_the_hash_of_a_text_is_the_sha1_that_every_other_tool_gives(text: str, sha: str) -> None:
    assert sha1_text(text) == sha


def test_half_a_surrogate_pair_is_hashed_like_any_other_text() -> None:
    assert sha1_text("\ud800") not in {sha1_text(""), sha1_text("\udfff")}


@quick
@given(JSON)
def test_canonical_json_is_on_one_line_and_reads_back_as_the_value(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert "\n" not in text
    assert json.loads(readable_json(value)) == value
