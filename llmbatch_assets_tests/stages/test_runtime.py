"""Garbage is looked for seldom while items are worked on, and as before afterwards."""

import contextlib
import gc

from llmbatch_assets.stages.runtime import YOUNG_OBJECTS, rare_collections


def test_what_was_there_is_not_gone_through_and_all_is_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with contextlib.suppress(KeyboardInterrupt), rare_collections():
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] == YOUNG_OBJECTS
        raise KeyboardInterrupt
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_what_another_one_has_frozen_stays_frozen() -> None:
    gc.freeze()
    try:
        with rare_collections():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
