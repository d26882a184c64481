"""Where lineage starts: the files that a user changes."""

import hashlib
from collections.abc import Callable

import dagster as dg

from llmbatch_assets.adapters.project import Batch, BatchFile
from llmbatch_assets.assets.keys import Names


def source_assets(batch_file: BatchFile, names: Names) -> list[dg.SourceAsset]:
    """The table, the prompts and the parameters, each with its fingerprint as data version."""
    return [
        _source("input_table", "The table, as it lies on disk.", batch_file, names, _table_sha),
        _source("prompts", "The prompt files; only their messages count.", batch_file, names, _prompts_sha),
        _source("parameters", "The configuration of the batch.", batch_file, names, Batch.config_sha),
    ]


def _source(
    name: str, description: str, batch_file: BatchFile, names: Names, fingerprint: Callable[[Batch], str]
) -> dg.SourceAsset:
    @dg.observable_source_asset(key=names.key(name), group_name=names.group, description=description)
    def observe() -> dg.DataVersion:
        return dg.DataVersion(fingerprint(batch_file.load()))

    return observe


def _table_sha(batch: Batch) -> str:
    with batch.path(batch.parameters.input.path).open("rb") as table:
        return hashlib.file_digest(table, "sha1").hexdigest()


def _prompts_sha(batch: Batch) -> str:
    judge = batch.judge_prompt
    return batch.generation_prompt.sha + (judge.sha if judge else "")
