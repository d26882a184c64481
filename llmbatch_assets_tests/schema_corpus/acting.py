"""Runs modules of the corpus as Python would, each in a process of its own with little time and memory.

``python -m llmbatch_assets_tests.schema_corpus.acting FOLDER`` runs each ``FOLDER/*.py`` and uses its model; the marker of
``name.py`` is ``FOLDER/name.mark``. Forking spares each the import of pydantic.
"""

from __future__ import annotations

import contextlib
import os
import resource
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import pydantic  # once, for all forks
import pydantic.deprecated.class_validators
import pydantic.root_model  # noqa: F401

MOST_SEC = 5
MOST_BYTES = 2 << 30


def main(folder: Path) -> None:
    """Run them one after another."""
    for path in sorted(folder.glob("*.py")):
        child = os.fork()
        if not child:
            act(path)
        os.waitpid(child, 0)


def act(path: Path) -> None:
    """Be the module's importer and the user of its model, as far as that goes, and end."""
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SEC, MOST_SEC))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    os.environ["SCHEMA_MARKER"] = str(path.with_suffix(".mark"))
    warnings.simplefilter("ignore")
    with contextlib.suppress(BaseException):
        names = run(path)
        model = names["LLMOutput"]
        for use in (model, model.model_json_schema, lambda: model(a="x").model_dump(), lambda: model(b="x")):
            with contextlib.suppress(BaseException):
                use()
    os._exit(0)


def run(path: Path) -> dict[str, Any]:
    """Import it; where that left no marker a second time as the main module, for what is only done there."""
    try:
        return runpy.run_path(str(path))
    finally:
        if not path.with_suffix(".mark").exists():
            with contextlib.suppress(BaseException):
                runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
