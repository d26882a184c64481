"""The public names, and their imports, which must not load Dagster before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llmbatch_assets


def test_these_names_are_public() -> None:
    # Users import them. Removing or renaming one is a breaking change.
    assert llmbatch_assets.__all__ == ["BatchDefinitions", "build_batch", "defs"]
    assert set(llmbatch_assets.__all__) <= set(dir(llmbatch_assets))


def test_public_names_are_those_of_the_modules_that_define_them() -> None:
    from llmbatch_assets import BatchDefinitions, build_batch, defs
    from llmbatch_assets.assets import batch
    from llmbatch_assets.definitions import defs as of_code_location

    assert (BatchDefinitions, build_batch, defs) == (batch.BatchDefinitions, batch.build_batch, of_code_location)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = llmbatch_assets.nothing


def test_the_package_is_imported_without_dagster() -> None:
    code = "import sys, llmbatch_assets; print(sorted({'dagster', 'pydantic', 'yaml', 'rich'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == "[]"
