"""How often Python looks for garbage while items are worked on."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# An item leaves some hundred objects that refer to each other; Python's own 700 would mean a look for every few items.
YOUNG_OBJECTS = 20_000


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for garbage seldom in this block, and never among what was there before it.

    Dagster and its libraries are half a million objects that stay; going through them again and again took a fifth of
    the processor time of a fast batch.
    """
    thresholds, frozen_before = gc.get_threshold(), gc.get_freeze_count()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not frozen_before:
            gc.unfreeze()
