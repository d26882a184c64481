"""The user's files as source assets, at the start of the lineage."""

import dagster as dg

from llmbatch_assets.assets.names import Names
from llmbatch_assets.resources.versions import input_tags, observe
from llmbatch_assets.stages.prepare import SOURCE_VERSIONS
from llmbatch_assets.stages.project import Batch, BatchFile

_DESCRIPTIONS = {
    "input_table": "The input table file.",
    "prompts": "The prompt files. Only their messages affect outputs; name, version and purpose do not.",
    "parameters": "The configuration file of the batch.",
}


def source_assets(batch_file: BatchFile, names: Names, *, table: bool) -> list[dg.SourceAsset]:
    """Prompts, parameters and, if ``table`` is a file, the table. Their fingerprints are their data versions."""
    return [
        _source_asset(name, description, batch_file, names)
        for name, description in _DESCRIPTIONS.items()
        if table or name != "input_table"
    ]


def _source_asset(name: str, description: str, batch_file: BatchFile, names: Names) -> dg.SourceAsset:
    @dg.observable_source_asset(key=names.key(name), group_name=names.group, description=description)
    def source() -> dg.DataVersion:
        return dg.DataVersion(SOURCE_VERSIONS[name](batch_file.load()))

    return source


def use_sources(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, batch: Batch, names: Names, *sources: str
) -> dict[str, str]:
    """Record the sources as the run uses them, and return the tags that link its outputs to these versions.

    Users therefore need not observe sources first, and a later observation of the same files makes nothing stale.
    """
    versions = {names.key(name): SOURCE_VERSIONS[name](batch) for name in sources}
    observe(context, versions)
    return input_tags(context.instance, versions)
