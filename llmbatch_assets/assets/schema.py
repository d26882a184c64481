"""``llm_schema_py`` and ``llm_schema_txt``: the contract as code and as text."""

import dagster as dg
from pydantic import Field

from llmbatch_assets.adapters.project import BatchFile
from llmbatch_assets.adapters.schema_files import ensure_schema_txt
from llmbatch_assets.assets.keys import Names


class SchemaTextConfig(dg.Config):
    """How ``llm_schema_txt`` is made."""

    force: bool = Field(default=False, description="Archive the text and write it anew although it matches.")


def schema_assets(batch_file: BatchFile, names: Names) -> list[dg.AssetsDefinition]:
    """Both forms of the contract."""

    @dg.asset(
        key=names.key("llm_schema_py"),
        group_name=names.group,
        deps=[names.key("parameters")],
        kinds={"python", "pydantic"},
        description="The Pydantic module that every output is validated against. It is read and vetted, never run.",
    )
    def llm_schema_py(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        batch = batch_file.load()
        contract = batch.schema.output()
        context.log.info(f"{batch.layout.schema_py} exists; nothing to do (vetted, schema_sha={contract.sha})")
        return dg.MaterializeResult(
            metadata={
                "path": dg.MetadataValue.path(str(batch.layout.schema_py)),
                "schema_sha": contract.sha,
                "models": ", ".join(batch.schema.models),
            },
            data_version=dg.DataVersion(contract.sha),
        )

    @dg.asset(
        key=names.key("llm_schema_txt"),
        group_name=names.group,
        deps=[names.key("llm_schema_py")],
        kinds={"json"},
        description="The same contract as JSON schema text, for prompts.",
    )
    def llm_schema_txt(context: dg.AssetExecutionContext, config: SchemaTextConfig) -> dg.MaterializeResult[None]:
        batch = batch_file.load()
        done = ensure_schema_txt(batch, force=config.force)
        context.log.info(done.told)
        return dg.MaterializeResult(
            metadata={"path": dg.MetadataValue.path(str(batch.layout.schema_txt)), "rewritten": done.written},
            data_version=dg.DataVersion(done.sha),
        )

    return [llm_schema_py, llm_schema_txt]
