"""Selection of items: the requested ones, in order, without those that are done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.item_state import ItemState
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.plan.selection import Choice, Selection, by_group, choose
from llmbatch_assets.errors import InputError
from llmbatch_assets_tests.domain.strategies import make_item, quick

STATES: tuple[ItemState, ...] = ("accepted", "failed", "failed_permanently", "missing")
ITEMS = [make_item(number) for number in range(len(STATES))]
KEYS = {state: item.partition_key for state, item in zip(STATES, ITEMS, strict=True)}


def chosen(forced: Sequence[str] = (), **selection: Any) -> tuple[list[str], list[str]]:
    """The states of the items to run and of those that are there already, of one item in each state."""
    states: dict[str, ItemState] = {item.partition_key: state for state, item in zip(STATES, ITEMS, strict=True)}
    choice = choose(ITEMS, states, Selection(**selection), lambda item: states[item.partition_key] in forced)
    return [states[item.partition_key] for item in choice.to_run], [states[item.partition_key] for item in choice.hits]


@pytest.mark.parametrize(
    ("selection", "to_run", "hits"),
    [
        # A plain run does not ask again what will never be answered, nor what is answered.
        ({}, ["failed", "missing"], []),
        ({"retry_failed": True}, ["failed", "failed_permanently", "missing"], []),
        ({"select": "failed"}, ["failed", "failed_permanently"], []),
        ({"select": "missing"}, ["missing"], []),
        ({"select": "all"}, ["failed", "failed_permanently", "missing"], ["accepted"]),
        # An item named by its key is worked on whatever its state, and a hit is a hit.
        ({"select": "keys", "keys": [KEYS["failed_permanently"]]}, ["failed_permanently"], []),
        ({"select": "keys", "keys": [KEYS["missing"], KEYS["accepted"]]}, ["missing"], ["accepted"]),
        ({"select": "keys", "keys": []}, [], []),
        # Marked for regeneration: a plain run goes on with it.
        ({"forced": ["accepted"]}, ["accepted", "failed", "missing"], []),
        ({"select": "keys", "keys": [KEYS["accepted"]], "forced": ["accepted"]}, ["accepted"], []),
        ({"select": "all", "forced": STATES}, list(STATES), []),
        ({"select": "failed", "forced": STATES}, ["failed", "failed_permanently"], []),
        ({"select": "missing", "forced": STATES}, ["missing"], []),
        # A limit takes the first.
        ({"limit": 1}, ["failed"], []),
        ({"select": "all", "limit": 2}, ["failed"], ["accepted"]),
        ({"limit": 99}, ["failed", "missing"], []),
    ],
)
def test_a_selection_takes_what_it_names(selection: dict[str, Any], to_run: list[str], hits: list[str]) -> None:
    assert chosen(**selection) == (to_run, hits)


def test_unknown_keys_are_reported() -> None:
    with pytest.raises(InputError, match=r"partition key 'x' \(2 unknown keys in all\)"):
        chosen(select="keys", keys=["x", KEYS["missing"], "y"])


GROUPED = st.lists(st.sampled_from(["red", "blue", "green"]), max_size=12)


def items_of(groups: Sequence[str]) -> list[WorkItem]:
    """One item per name of a group."""
    return [make_item(number, group, group_context_id=group) for number, group in enumerate(groups)]


def sampled(items: Sequence[WorkItem], size: int) -> list[WorkItem]:
    """A sample of items that are all missing."""
    states: dict[str, ItemState] = dict.fromkeys((item.partition_key for item in items), "missing")
    choice: Choice = choose(items, states, Selection(sample=size), lambda _: False)
    return choice.to_run


@quick
@given(GROUPED, st.integers(1, 14))
def test_a_sample_takes_from_the_groups_in_turn_and_keeps_their_order(groups: list[str], size: int) -> None:
    items = items_of(groups)
    picked = sampled(items, size)
    assert len(picked) == min(size, len(items))
    assert picked == sorted(picked, key=items.index)
    taken, there = Counter(item.group_key for item in picked), Counter(groups)
    fullest = max(taken.values(), default=0)
    assert all(taken[group] >= min(fullest - 1, there[group]) for group in there)


@quick
@given(GROUPED, st.integers(1, 14), st.randoms(use_true_random=False))
def test_a_sample_within_a_group_does_not_depend_on_the_order_of_its_items(
    groups: list[str], size: int, random: Any
) -> None:
    items = [make_item(number, "one") for number in range(len(groups))]
    moved = random.sample(items, len(items))
    assert {item.work_id for item in sampled(items, size)} == {item.work_id for item in sampled(moved, size)}


def test_a_larger_sample_contains_the_smaller_one() -> None:
    items = items_of(["red", "blue", "red", "green", "red", "blue"])
    samples = [{item.work_id for item in sampled(items, size)} for size in range(1, 7)]
    assert all(small < large for small, large in pairwise(samples))


def test_a_sample_is_drawn_before_it_is_limited() -> None:
    items = items_of(["red", "red", "red", "blue"])
    states: dict[str, ItemState] = dict.fromkeys((item.partition_key for item in items), "missing")
    choice = choose(items, states, Selection(sample=2, limit=1), lambda _: False)
    assert choice.to_run == sampled(items, 2)[:1]


@quick
@given(GROUPED)
def test_items_of_a_group_are_adjacent_and_keep_their_order(groups: list[str]) -> None:
    items = items_of(groups)
    ordered = by_group(items)
    expected = [item for group in dict.fromkeys(groups) for item in items if item.group_key == group]
    assert ordered == expected
