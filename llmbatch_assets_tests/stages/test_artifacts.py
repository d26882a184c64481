"""The order of outputs, and that what is not done is passed over."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from llmbatch_assets.adapters.store.index import CacheFolders, CacheIndex
from llmbatch_assets.adapters.store.outputs import FileStore
from llmbatch_assets.domain.export.records import OutdatedOutput
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.stages.artifacts import BatchOutputs
from llmbatch_assets_tests.adapters.values import IDENTITY, accepted, cache_id, failed, work_item

OTHER_MODEL = IDENTITY.model_copy(update={"model_name": "m-2"})
OTHER_BOTH = IDENTITY.model_copy(update={"model_name": "m-3", "prompt_sha": "q"})


def index_of(folder: Path) -> CacheIndex:
    return CacheIndex(
        CacheFolders(*(folder / name for name in ("llm_outputs", "llm_failures", "forced", "awaiting_judge")))
    )


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(index_of(tmp_path))


def keep(store: FileStore, *numbers: int) -> None:
    for number in numbers:
        asyncio.run(store.save_accepted(accepted(number, parsed={"answer": str(number)})))


def test_outputs_come_in_the_order_of_the_items_whatever_the_files_are_called(store: FileStore) -> None:
    keep(store, 0, 1, 2, 3)
    outputs = BatchOutputs(replace(store.index), IDENTITY, [work_item(number) for number in (2, 0, 3, 1)])
    assert [output.parsed["answer"] for _, output in outputs] == ["2", "0", "3", "1"]
    assert [item.partition_key for item, _ in outputs] == ["item-2", "item-0", "item-3", "item-1"]


def test_failed_missing_and_broken_ones_are_passed_over(store: FileStore) -> None:
    keep(store, 0, 3)
    asyncio.run(store.save_failure(failed(1)))
    store.index.output_path(cache_id(2)).write_bytes(b"{")
    outputs = BatchOutputs(replace(store.index), IDENTITY, [work_item(number) for number in range(4)])
    assert [item.row_index for item, _ in outputs] == [0, 3]
    assert [outputs.output(item) is None for item in outputs.items] == [False, True, True, False]
    assert [outputs.failure(item) is None for item in outputs.items] == [True, False, True, True]


def test_outputs_of_another_identity_are_not_its_own(store: FileStore) -> None:
    keep(store, 0)
    other = IDENTITY.model_copy(update={"model_name": "m-2"})
    assert list(BatchOutputs(replace(store.index), other, [work_item(0)])) == []


def test_outputs_show_what_has_landed_since(store: FileStore) -> None:
    outputs = BatchOutputs(replace(store.index), IDENTITY, [work_item(0), work_item(1)])
    assert len(list(outputs)) == 0
    keep(store, 1)
    assert len(list(outputs)) == 1


def test_outputs_are_read_when_they_are_asked_for(store: FileStore) -> None:
    keep(store, 0, 1)
    pairs = iter(BatchOutputs(replace(store.index), IDENTITY, [work_item(0), work_item(1)]))
    next(pairs)
    keep_path = store.index.output_path(cache_id(1))
    keep_path.write_bytes(keep_path.read_bytes().replace(b'"1"', b'"changed"'))
    assert next(pairs)[1].parsed["answer"] == "changed"


# Outputs of earlier settings, found by their names.


def outdated(folder: Path, number: int, *kept: BatchIdentity) -> OutdatedOutput | None:
    """Look up an item in a cache where these settings left empty outputs of the first item."""
    index = index_of(folder)
    for identity in kept:
        path = index.output_path(identity.cache_id(work_item(0).work_id))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    items = [work_item(number) for number in range(2)]
    return BatchOutputs(index, IDENTITY, items, earlier=[OTHER_BOTH, IDENTITY, OTHER_MODEL]).outdated(
        items[number], lambda path: path.stem
    )


def test_the_output_whose_settings_differ_least_is_found(tmp_path: Path) -> None:
    found = outdated(tmp_path, 0, OTHER_BOTH, OTHER_MODEL)
    assert found == OutdatedOutput(OTHER_MODEL.cache_id(work_item(0).work_id), "model")


def test_what_differs_is_told(tmp_path: Path) -> None:
    found = outdated(tmp_path, 0, OTHER_BOTH)
    assert found == OutdatedOutput(OTHER_BOTH.cache_id(work_item(0).work_id), "generation prompt, model")


def test_an_item_whose_output_is_broken_has_the_older_one(tmp_path: Path) -> None:
    found = outdated(tmp_path, 0, OTHER_BOTH, IDENTITY)
    assert found == OutdatedOutput(OTHER_BOTH.cache_id(work_item(0).work_id), "generation prompt, model")


def test_an_item_without_one_and_a_cache_without_any_have_none(tmp_path: Path) -> None:
    assert outdated(tmp_path, 1, OTHER_MODEL) is None
    assert outdated(tmp_path / "new", 0) is None


def test_an_output_of_the_settings_in_force_is_no_older_one(tmp_path: Path) -> None:
    assert outdated(tmp_path, 0, IDENTITY) is None
