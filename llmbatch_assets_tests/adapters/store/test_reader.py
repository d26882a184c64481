"""The order of outputs, and that what is not done is passed over."""

import asyncio
from pathlib import Path

import pytest

from llmbatch_assets.adapters.store.outputs import FileStore
from llmbatch_assets.adapters.store.reader import OutputReader
from llmbatch_assets_tests.adapters.values import IDENTITY, accepted, cache_id, failed, work_item


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "llm_outputs", tmp_path / "llm_failures", tmp_path / "forced")


def keep(store: FileStore, *numbers: int) -> None:
    for number in numbers:
        asyncio.run(store.save_accepted(accepted(number, parsed={"answer": str(number)})))


def test_outputs_come_in_the_order_of_the_items_whatever_the_files_are_called(store: FileStore) -> None:
    keep(store, 0, 1, 2, 3)
    reader = OutputReader(store, IDENTITY, [work_item(number) for number in (2, 0, 3, 1)])
    assert [output.parsed["answer"] for _, output in reader] == ["2", "0", "3", "1"]
    assert [item.partition_key for item, _ in reader] == ["item-2", "item-0", "item-3", "item-1"]


def test_failed_missing_and_broken_ones_are_passed_over(store: FileStore) -> None:
    keep(store, 0, 3)
    asyncio.run(store.save_failure(failed(1)))
    store.accepted_path(cache_id(2)).write_bytes(b"{")
    reader = OutputReader(store, IDENTITY, [work_item(number) for number in range(4)])
    assert [item.row_index for item, _ in reader] == [0, 3]
    assert [reader.output(item) is None for item in reader.items] == [False, True, True, False]
    assert [reader.failure(item) is None for item in reader.items] == [True, False, True, True]


def test_outputs_of_another_identity_are_not_its_own(store: FileStore) -> None:
    keep(store, 0)
    other = IDENTITY.model_copy(update={"model_name": "m-2"})
    assert list(OutputReader(store, other, [work_item(0)])) == []


def test_a_reader_sees_what_has_landed_since(store: FileStore) -> None:
    reader = OutputReader(store, IDENTITY, [work_item(0), work_item(1)])
    assert len(list(reader)) == 0
    keep(store, 1)
    assert len(list(reader)) == 1


def test_outputs_are_read_when_they_are_asked_for(store: FileStore) -> None:
    keep(store, 0, 1)
    pairs = iter(OutputReader(store, IDENTITY, [work_item(0), work_item(1)]))
    next(pairs)
    keep_path = store.accepted_path(cache_id(1))
    keep_path.write_bytes(keep_path.read_bytes().replace(b'"1"', b'"changed"'))
    assert next(pairs)[1].parsed["answer"] == "changed"
