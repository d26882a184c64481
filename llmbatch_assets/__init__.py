"""Turn every row of a table into a validated, judged and cached JSON output of an LLM, as Dagster assets.

Other modules are internal and may change; import from here only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmbatch_assets.assets.batch import BatchDefinitions, build_batch
    from llmbatch_assets.definitions import defs

__all__ = ["BatchDefinitions", "build_batch", "defs"]

_MODULES = {
    "BatchDefinitions": "llmbatch_assets.assets.batch",
    "build_batch": "llmbatch_assets.assets.batch",
    "defs": "llmbatch_assets.definitions",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: Dagster takes seconds to import, and most commands do not need it.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
