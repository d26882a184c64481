"""Where lineage starts: the files that a user changes."""

import hashlib
from collections.abc import Callable

import dagster as dg

from llmbatch_assets.assets.names import Names
from llmbatch_assets.resources.versions import input_tags, observe
from llmbatch_assets.stages.project import Batch, BatchFile


def source_assets(batch_file: BatchFile, names: Names, *, table: bool) -> list[dg.SourceAsset]:
    """The prompts and the parameters, each with its fingerprint as data version, and the ``table`` where it is a file."""
    return [
        _source(name, description, batch_file, names)
        for name, description in _DESCRIPTIONS.items()
        if table or name != "input_table"
    ]


def _source(name: str, description: str, batch_file: BatchFile, names: Names) -> dg.SourceAsset:
    @dg.observable_source_asset(key=names.key(name), group_name=names.group, description=description)
    def source() -> dg.DataVersion:
        return dg.DataVersion(FINGERPRINTS[name](batch_file.load()))

    return source


def use_sources(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, batch: Batch, names: Names, *sources: str
) -> dict[str, str]:
    """Record the sources as a run uses them; gives the tags that say so for whatever is made of them.

    Nobody needs to observe them beforehand, and what a run has made is not called out of date by a later observation
    of the very same files.
    """
    versions = {names.key(name): FINGERPRINTS[name](batch) for name in sources}
    observe(context, versions)
    return input_tags(context.instance, versions)


def _table_sha(batch: Batch) -> str:
    with batch.path(batch.parameters.input.path).open("rb") as table:
        return hashlib.file_digest(table, "sha1").hexdigest()


def _prompts_sha(batch: Batch) -> str:
    judge = batch.judge_prompt
    return batch.generation_prompt.sha + (judge.sha if judge else "")


_DESCRIPTIONS = {
    "input_table": "The table, as it lies on disk.",
    "prompts": "The prompt files; only their messages count.",
    "parameters": "The configuration of the batch.",
}
FINGERPRINTS: dict[str, Callable[[Batch], str]] = {
    "input_table": _table_sha,
    "prompts": _prompts_sha,
    "parameters": Batch.config_sha,
}
