"""Whether the schema module has to be written by the model before anything else."""

from __future__ import annotations

from llmbatch_assets.adapters.files.atomic import read_json
from llmbatch_assets.domain.schema.writing import generated_from, schema_conversation
from llmbatch_assets.errors import ArtifactError, SchemaError
from llmbatch_assets.stages.project import Batch

# The number of the manifest of a schema that was written.
MANIFEST = 0


def why_due(batch: Batch, *, force: bool = False) -> str:
    """Why the module has to be written, or nothing where it stands. Raises ``SchemaError`` or ``PromptError``."""
    settings, path = batch.parameters.llm_schema, batch.layout.schema_py
    if batch.path(path).is_file():
        changed = settings.force_regenerate and _last_generated_from(batch) != generated_from_now(batch)
        reason = "forced" if force else "llm_schema.force_regenerate, and what it is written from has changed"
        why = reason if force or changed else ""
    elif settings.auto_generate or force:
        why = "it does not exist"
    else:
        raise SchemaError(
            f"{path} does not exist; write it, name another file in llm_schema.py_path, or set "
            "llm_schema.auto_generate: true to have the model write it"
        )
    if why and batch.parameters.llm.provider == "offline":
        remedy = (
            "run without --offline, or without asking for another one"
            if batch.path(path).is_file()
            else "write it, or name another file in llm_schema.py_path"
        )
        raise SchemaError(f"{path} has to be written by a model ({why}), and provider offline has none; {remedy}")
    if why:
        schema_conversation(batch.schema_prompt, batch.generation_prompt, settings.task)
    return why


def generated_from_now(batch: Batch) -> str:
    """The sha of what a schema would be written from."""
    parameters = batch.parameters
    return generated_from(batch.schema_prompt, batch.generation_prompt, parameters.llm_schema.task, parameters.llm)


def _last_generated_from(batch: Batch) -> str:
    path = batch.path(batch.layout.manifest(MANIFEST))
    if not path.is_file():
        return ""
    remedy = "removing it, which has the schema written anew"
    try:
        return str(read_json(path, remedy)["meta"]["generated_from"])
    except (KeyError, TypeError):
        raise ArtifactError(
            f"{path} does not say what the schema was written from; make it again by {remedy}"
        ) from None
