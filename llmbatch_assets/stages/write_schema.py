"""Having the schema module written by the model."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from llmbatch_assets.adapters.files.atomic import write_json
from llmbatch_assets.adapters.providers.registry import Opener
from llmbatch_assets.adapters.schema_module import load_schema, load_source
from llmbatch_assets.adapters.store.provenance import keep_provenance
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.schema.grammar import parse_schema
from llmbatch_assets.domain.schema.spec import render_schema
from llmbatch_assets.domain.schema.writing import schema_conversation
from llmbatch_assets.engine.retry import RetryingCalls
from llmbatch_assets.engine.schema_writer import SchemaWriter, WrittenSchema
from llmbatch_assets.errors import SchemaGenerationError
from llmbatch_assets.stages.generate.clients import CallMeter
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.runtime import interruptible, new_run_id, utc_now
from llmbatch_assets.stages.schema_due import MANIFEST, generated_from_now
from llmbatch_assets.stages.schema_files import replace_schema_py, replace_schema_txt

# What llm.max_output_tokens says of an item's output is too little for a module.
SCHEMA_TOKENS = 4_000


class SchemaDone(NamedTuple):
    """A module that was written: what it took, and where the one before is."""

    written: WrittenSchema
    archived: Path | None


def write_schema(batch: Batch, open_client: Opener, say: Callable[[str], None], run_id: str = "") -> SchemaDone:
    """Have the module written and put it in place; the one before is archived.

    Raises ``SchemaGenerationError``, a ``ProviderError`` or ``RunInterruptedError``; then the old one stays.
    """
    try:
        written = asyncio.run(_ask_for(batch, CallMeter(open_client, batch, run_id or new_run_id(), utc_now), say))
    except SchemaGenerationError as failed:
        raise SchemaGenerationError(
            f"{str(failed).rstrip('.')}. The answers are in {batch.layout.schema_failures}/; nothing was replaced. Write "
            f"{batch.layout.schema_py} by hand, or say more in llm_schema.task, or name a larger model in llm.model_name"
        ) from None
    archived = replace_schema_py(batch, written.source)
    path, trust = batch.layout.schema_py, batch.parameters.llm_schema.trust
    models = load_schema(batch.path(path), str(path), trust=trust)
    contract = models.output()
    if batch.path(batch.layout.schema_txt).is_file():
        # Left as it was, it would be a mismatch that nobody made.
        replace_schema_txt(batch, models.text())
    manifest = {
        "meta": {
            "pipeline": 0,
            "generated_at_utc": utc_now(),
            "model_name": batch.parameters.llm.model_name,
            "provider": batch.parameters.llm.provider,
            "generated_from": generated_from_now(batch),
            "prompt_path": batch.schema_prompt.path,
            "prompt_sha": batch.schema_prompt.sha,
            "schema_sha": contract.sha,
            "attempts": written.attempts,
        },
        "usage": written.usage,
        "outputs": {
            "schema_py": str(batch.layout.schema_py),
            "archived": batch.shown(archived) if archived else None,
        },
    }
    keep_provenance(
        batch.path(batch.layout.provenance), {batch.schema_prompt.sha: batch.schema_prompt.model_dump(mode="json")}
    )
    write_json(batch.path(batch.layout.manifest(MANIFEST)), manifest)
    return SchemaDone(written, archived)


async def _ask_for(batch: Batch, meter: CallMeter, say: Callable[[str], None]) -> WrittenSchema:
    settings = batch.parameters.llm
    longest = settings.max_output_tokens and max(settings.max_output_tokens, SCHEMA_TOKENS)
    settings = settings.model_copy(update={"max_output_tokens": longest})
    opening = schema_conversation(batch.schema_prompt, batch.generation_prompt, batch.parameters.llm_schema.task)

    def on_refused(number: int, completion: Completion, problem: str) -> None:
        path = _keep_failure(batch, completion, problem)
        say(f"schema answer {number}/{settings.max_retries} refused, kept as {batch.shown(path)}: {problem}")

    with interruptible() as stopped:
        async with meter.client(settings, stopped) as client:
            writer = SchemaWriter(
                client,
                lambda source: _vet(batch, source),
                on_refused,
                settings.max_retries,
                RetryingCalls(settings.transport_retries, stopped),
            )
            return await writer.write(opening)


def _vet(batch: Batch, source: str) -> str:
    models = load_source(source, "the module")
    models.output()
    if batch.parameters.prompts.judge.enabled:
        models.judge()
    return render_schema(parse_schema(source, "the module"))


def _keep_failure(batch: Batch, completion: Completion, problem: str) -> Path:
    folder = batch.path(batch.layout.schema_failures)
    path = next(path for number in itertools.count(1) if not (path := folder / f"schema__a{number}.json").exists())
    meta = {"created_at_utc": utc_now(), "model": batch.parameters.llm.model_name}
    write_json(path, {"meta": meta, "feedback": problem, "raw_text": completion.text, "usage": completion.usage})
    return path
