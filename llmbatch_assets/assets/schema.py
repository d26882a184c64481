"""``llm_schema_py`` and ``llm_schema_txt``: the contract as code and as text."""

import dagster as dg
from pydantic import Field

from llmbatch_assets.assets.names import Names
from llmbatch_assets.assets.sources import use_sources
from llmbatch_assets.errors import RunInterruptedError
from llmbatch_assets.resources.llm import LlmResource
from llmbatch_assets.resources.reporter import ReporterFactory
from llmbatch_assets.resources.runs import cancel
from llmbatch_assets.stages.project import BatchFile
from llmbatch_assets.stages.write_schema import ensure_schema_txt, reason_to_write, write_schema


class SchemaModuleConfig(dg.Config):
    """How ``llm_schema_py`` is made."""

    force: bool = Field(default=False, description="Archive the module and have the model write another one.")


class SchemaTextConfig(dg.Config):
    """How ``llm_schema_txt`` is made."""

    force: bool = Field(default=False, description="Archive the text and write it anew although it matches.")


def schema_assets(batch_file: BatchFile, names: Names, reporter: ReporterFactory | None) -> list[dg.AssetsDefinition]:
    """Both forms of the contract."""

    @dg.asset(
        key=names.key("llm_schema_py"),
        group_name=names.group,
        deps=[names.key("parameters"), names.key("prompts")],
        pool="llm",
        kinds={"python", "pydantic"},
        description="The Pydantic module that every output is validated against: read and vetted, never run. Written by "
        "the model where it is missing.",
    )
    def llm_schema_py(
        context: dg.AssetExecutionContext, config: SchemaModuleConfig, llm: dg.ResourceParam[LlmResource]
    ) -> dg.MaterializeResult[None]:
        batch = batch_file.load()
        why = reason_to_write(batch, force=config.force)
        facts: dict[str, int | float | str] = {"written_by_the_model": why or "no"}
        if why:
            say = reporter(context, batch).say if reporter else context.log.info
            say(f"{batch.layout.schema_py} is to be written: {why}")
            try:
                done = write_schema(batch, llm.client, say, context.run.run_id)
            except RunInterruptedError:
                cancel(context)
            facts |= {"attempts": done.written.attempts, "tokens": done.written.usage.total_tokens}
            if done.written.usage.cost_usd is not None:
                facts["cost_usd"] = done.written.usage.cost_usd
            say(f"{batch.layout.schema_py} was written, in {done.written.attempts} answers")
            if done.archived:
                facts["archived"] = batch.shown(done.archived)
        batch.check_schema()
        contract = batch.schema.output()
        trusted = "as it is (llm_schema.trust)" if batch.parameters.llm_schema.trust else "vetted"
        told = "was written" if why else "exists; nothing to do"
        context.log.info(f"{batch.layout.schema_py} {told} ({trusted}, schema_sha={contract.sha})")
        return dg.MaterializeResult(
            metadata={
                "path": dg.MetadataValue.path(str(batch.layout.schema_py)),
                "schema_sha": contract.sha,
                "models": ", ".join(batch.schema.models),
                "imported": trusted,
                **facts,
            },
            data_version=dg.DataVersion(contract.sha),
            tags=use_sources(context, batch, names, "parameters", "prompts"),
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
        context.log.info(done.message)
        return dg.MaterializeResult(
            metadata={"path": dg.MetadataValue.path(str(batch.layout.schema_txt)), "rewritten": done.written},
            data_version=dg.DataVersion(done.sha),
        )

    return [llm_schema_py, llm_schema_txt]
