"""Outputs of earlier settings are found by their names, without opening one."""

from __future__ import annotations

from pathlib import Path

from llmbatch_assets.adapters.store.older_outputs import OlderOutputs
from llmbatch_assets.adapters.store.outputs import FileStore
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets_tests.adapters.values import IDENTITY, work_item

OTHER_MODEL = IDENTITY.model_copy(update={"model_name": "m-2"})
OTHER_BOTH = IDENTITY.model_copy(update={"model_name": "m-3", "prompt_sha": "q"})


def older(folder: Path, *kept: BatchIdentity) -> OlderOutputs:
    """The search among outputs that these settings made of the first item. Their files are empty."""
    store = FileStore(folder / "llm_outputs", folder / "llm_failures", folder / "forced")
    for identity in kept:
        path = store.accepted_path(identity.cache_id(work_item(0).work_id))
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return OlderOutputs(store, IDENTITY, [OTHER_BOTH, IDENTITY, OTHER_MODEL])


def test_the_output_whose_settings_differ_least_is_found(tmp_path: Path) -> None:
    found = older(tmp_path, OTHER_BOTH, OTHER_MODEL).find(work_item(0))
    assert found == (OTHER_MODEL.cache_id(work_item(0).work_id), ["model"])


def test_what_differs_is_told(tmp_path: Path) -> None:
    found = older(tmp_path, OTHER_BOTH).find(work_item(0))
    assert found == (OTHER_BOTH.cache_id(work_item(0).work_id), ["generation prompt", "model"])


def test_an_item_without_one_and_a_cache_without_any_have_none(tmp_path: Path) -> None:
    assert older(tmp_path, OTHER_MODEL).find(work_item(1)) is None
    assert older(tmp_path / "new").find(work_item(0)) is None


def test_an_output_of_the_settings_in_force_is_no_older_one(tmp_path: Path) -> None:
    assert older(tmp_path, IDENTITY).find(work_item(0)) is None
