"""Generate the schema module with the model where needed, and keep its JSON Schema text in step with it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from llmbatch_assets.adapters.files.atomic import log_archived, log_written, read_json, write_atomically, write_json
from llmbatch_assets.adapters.providers.registry import Opener
from llmbatch_assets.adapters.schema_module import load_schema, load_source
from llmbatch_assets.adapters.store.run_records import keep_provenance
from llmbatch_assets.domain.canonical import sha1_text
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.schema.grammar import parse_schema
from llmbatch_assets.domain.schema.spec import render_schema
from llmbatch_assets.domain.schema.writing import generated_from, python_of, schema_conversation
from llmbatch_assets.domain.text import counted
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.engine.ports import ChatClient
from llmbatch_assets.engine.retry import RetryingCalls, is_free
from llmbatch_assets.engine.stops import OutageLimits, Outages
from llmbatch_assets.errors import (
    AnswerError,
    ArtifactError,
    FailureCause,
    LlmBatchError,
    RunInterruptedError,
    SchemaError,
    SchemaGenerationError,
    TransientError,
)
from llmbatch_assets.stages.generate.clients import CallMeter
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.runtime import interruptible, new_run_id, utc_now

# The manifest number of this stage: pipeline0_manifest.json.
MANIFEST = 0
# llm.max_output_tokens is set for one output. A schema module may need more.
MIN_SCHEMA_TOKENS = 4_000


class SchemaDone(NamedTuple):
    """A schema module that the model wrote, and the archived copy of the previous one.

    ``previous_sha`` is the fingerprint of the previous schema; empty if there was none that could be read.
    """

    written: WrittenSchema
    archived: Path | None
    sha: str
    previous_sha: str

    def message(self, batch: Batch) -> str:
        """Describe the new module and what it replaced, for a log."""
        change = f"schema_sha {self.previous_sha or '(unreadable)'} -> {self.sha}"
        replaced = f"; archived the previous one as {batch.shown(self.archived)} ({change})" if self.archived else ""
        return f"The model wrote {batch.layout.schema_py} in {counted(self.written.attempts, 'attempt')}{replaced}"


class EnsuredText(NamedTuple):
    """The state of the schema text after a check, with a line for the log."""

    written: bool
    sha: str
    message: str


def reason_to_write(batch: Batch, *, force: bool = False) -> str:
    """Return why the model must write the schema module, or "" if the existing one stays.

    Raises ``SchemaError`` if it must be written but cannot be, and ``PromptError`` if the schema prompt is wrong.
    """
    settings, path = batch.parameters.llm_schema, batch.layout.schema_py
    exists = batch.path(path).is_file()
    if exists and force:
        reason = "forced"
    elif exists and settings.force_regenerate and _last_generated_from(batch) != _generated_from_now(batch):
        reason = "llm_schema.force_regenerate is true and the prompts, task or model changed"
    elif exists:
        return ""
    elif settings.auto_generate or force:
        reason = "it does not exist"
    else:
        raise SchemaError(
            f"{path} does not exist; write it, name another file in llm_schema.py_path, or set "
            "llm_schema.auto_generate: true to let the model write it"
        )
    if batch.parameters.llm.provider == "offline":
        own_file = "write it yourself, or name another file in llm_schema.py_path"
        remedy = "run without --offline, or keep the existing schema" if exists else own_file
        raise SchemaError(f"{path} must be written by a model ({reason}), but provider offline has no model; {remedy}")
    schema_conversation(batch.schema_prompt, batch.generation_prompt, settings.task)
    return reason


def _generated_from_now(batch: Batch) -> str:
    parameters = batch.parameters
    return generated_from(batch.schema_prompt, batch.generation_prompt, parameters.llm_schema.task, parameters.llm)


def _last_generated_from(batch: Batch) -> str:
    path = batch.path(batch.layout.manifest(MANIFEST))
    if not path.is_file():
        return ""
    remedy = "removing it; the next run then regenerates the schema"
    try:
        return str(read_json(path, remedy)["meta"]["generated_from"])
    except (KeyError, TypeError):
        raise ArtifactError(f"{path} has no meta.generated_from; fix this by {remedy}") from None


def write_schema(batch: Batch, open_client: Opener, say: Callable[[str], None], run_id: str = "") -> SchemaDone:
    """Have the model write the schema module, archive the previous one, and put the new one in place.

    Raises ``SchemaGenerationError``, a ``ProviderError`` or ``RunInterruptedError``; the previous module then stays, except
    if the new one arrived in the grace period after a signal.
    """
    try:
        written, interrupted = asyncio.run(
            _ask_for(batch, CallMeter(open_client, batch, run_id or new_run_id(), utc_now), say)
        )
    except SchemaGenerationError as failed:
        raise SchemaGenerationError(
            f"{str(failed).rstrip('.')}. The answers are in {batch.layout.schema_failures}/; no file was replaced. Write "
            f"{batch.layout.schema_py} yourself, describe more in llm_schema.task, or set a larger model in llm.model_name"
        ) from None
    path = batch.layout.schema_py
    previous_sha = _schema_sha(batch)
    archived = replace_schema_file(batch, path, written.source)
    models = load_schema(batch.path(path), str(path), trust=batch.parameters.llm_schema.trust)
    sha = models.output().sha
    if batch.path(batch.layout.schema_txt).is_file():
        # Keep the text in step, so that no mismatch is reported that the user did not cause.
        replace_schema_file(batch, batch.layout.schema_txt, models.text())
    prompt = batch.schema_prompt
    keep_provenance(batch.path(batch.layout.provenance), {prompt.sha: prompt.model_dump(mode="json")})
    done = SchemaDone(written, archived, sha, previous_sha)
    write_json(batch.path(batch.layout.manifest(MANIFEST)), _manifest(batch, done))
    if interrupted:
        # The module came in the grace period, so it is paid for and kept.
        raise interrupted
    return done


def _schema_sha(batch: Batch) -> str:
    """The fingerprint of the schema that is about to be replaced; empty if there is none that can be read."""
    path = batch.layout.schema_py
    try:
        return load_schema(batch.path(path), str(path), trust=batch.parameters.llm_schema.trust).output().sha
    except (LlmBatchError, OSError):
        return ""


def _manifest(batch: Batch, done: SchemaDone) -> dict[str, object]:
    return {
        "meta": {
            "pipeline": MANIFEST,
            "generated_at_utc": utc_now(),
            "model_name": batch.parameters.llm.model_name,
            "provider": batch.parameters.llm.provider,
            "generated_from": _generated_from_now(batch),
            "prompt_path": batch.schema_prompt.path,
            "prompt_sha": batch.schema_prompt.sha,
            "schema_sha": done.sha,
            "attempts": done.written.attempts,
        },
        "usage": done.written.usage,
        "outputs": {
            "schema_py": str(batch.layout.schema_py),
            "archived": batch.shown(done.archived) if done.archived else None,
        },
    }


async def _ask_for(
    batch: Batch, meter: CallMeter, say: Callable[[str], None]
) -> tuple[WrittenSchema, RunInterruptedError | None]:
    settings = batch.parameters.llm
    max_tokens = settings.max_output_tokens and max(settings.max_output_tokens, MIN_SCHEMA_TOKENS)
    settings = settings.model_copy(update={"max_output_tokens": max_tokens})
    opening = schema_conversation(batch.schema_prompt, batch.generation_prompt, batch.parameters.llm_schema.task)

    def on_refused(number: int, completion: Completion, problem: str) -> None:
        path = _keep_failure(batch, completion, problem)
        say(f"Schema answer {number} of {settings.max_retries} rejected (saved as {batch.shown(path)}): {problem}")

    written: WrittenSchema | None = None
    try:
        with interruptible() as stopped:
            async with meter.client(settings, stopped) as client:
                outages = Outages(OutageLimits(settings.give_up_after))
                calls = RetryingCalls(settings.transport_retries, stopped, outages)
                writer = SchemaWriter(
                    client, lambda source: _check(batch, source), on_refused, settings.max_retries, calls
                )
                written = await writer.write(opening)
    except RunInterruptedError as interrupted:
        if written is None:
            raise
        return written, interrupted
    return written, None


def _check(batch: Batch, source: str) -> str:
    """Return our rendering of a module that the model wrote. Raises ``SchemaError`` if the batch cannot use it."""
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


def ensure_schema_txt(batch: Batch, *, force: bool = False) -> EnsuredText:
    """Write the schema text if it is missing or does not match the module; the previous text is archived."""
    path, text = batch.layout.schema_txt, batch.schema.text()
    sha = sha1_text(text)
    if not force and batch.path(path).is_file() and not schema_txt_mismatch(batch):
        return EnsuredText(False, sha, f"{path} is up to date with {batch.layout.schema_py}")
    archived = replace_schema_file(batch, path, text)
    message = f"Wrote {path} ({len(text.encode())} bytes)"
    return EnsuredText(
        True, sha, f"{message}; archived the previous one as {batch.shown(archived)}" if archived else message
    )


def schema_txt_mismatch(batch: Batch) -> str:
    """Return a message if the schema text does not match the module, else "".

    Raises ``SchemaError`` instead if ``llm_schema.on_mismatch`` is ``error``.
    """
    path = batch.path(batch.layout.schema_txt)
    # A checkout may have changed the line endings.
    if not path.is_file() or path.read_bytes().replace(b"\r\n", b"\n") == batch.schema.text().encode():
        return ""
    mismatch = f"{batch.layout.schema_txt} does not match {batch.layout.schema_py}"
    if batch.parameters.llm_schema.on_mismatch == "error":
        rewrite = f"{batch.command} --select llm_schema_txt --force"
        raise SchemaError(f"{mismatch}, and llm_schema.on_mismatch is error; rewrite it with: {rewrite}")
    return mismatch


def replace_schema_file(batch: Batch, relative_path: PurePosixPath, text: str) -> Path | None:
    """Write the schema module or its text; return the archived copy of the previous one, if there was one."""
    path = batch.path(relative_path)
    archived = archive(path, batch.path(batch.layout.archive)) if path.is_file() else None
    if archived:
        log_archived(batch.shown(path), batch.shown(archived))
    log_written(batch.shown(path), write_atomically(path, text.encode()))
    return archived


def archive(path: Path, folder: Path) -> Path:
    """Copy a file into the archive under a new name with a time stamp. The original stays until it is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{path.stem}_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    names = (f"{stem}{f'_{number}' if number else ''}{path.suffix}" for number in itertools.count())
    target = next(folder / name for name in names if _reserve(folder / name))
    write_atomically(target, path.read_bytes())
    return target


def _reserve(path: Path) -> bool:
    """Create an empty file, and return whether the name was free; two runs cannot reserve the same name."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass(frozen=True)
class WrittenSchema:
    """The rendering of an accepted module, and the attempts and tokens it took."""

    source: str
    attempts: int
    usage: TokenUsage


@dataclass(frozen=True)
class SchemaWriter:
    """Asks for a module until one is accepted.

    ``check`` returns the rendering of a module or raises ``SchemaError``. ``on_refused`` is called for each rejected
    answer, with its number (from 1), the completion and the problem.
    """

    client: ChatClient
    check: Callable[[str], str]
    on_refused: Callable[[int, Completion, str], None]
    generations: int
    calls: RetryingCalls

    async def write(self, opening: tuple[Message, ...]) -> WrittenSchema:
        """Return an accepted module. Raises ``SchemaGenerationError`` after the last attempt, or a ``ProviderError``."""
        turns: tuple[Message, ...] = ()
        usage, problem = TokenUsage(), ""
        for number in range(1, self.generations + 1):
            completion, problem = await self._ask(opening + turns)
            usage += completion.usage
            try:
                if not problem:
                    return WrittenSchema(self._checked(completion), number, usage)
            except (AnswerError, SchemaError) as refused:
                problem = str(refused)
            self.on_refused(number, completion, problem)
            # Servers reject an empty turn.
            if completion.text.strip():
                turns += (
                    Message("assistant", completion.text),
                    Message("user", f"{problem}\n\nGive the whole corrected module as one Python code block."),
                )
        raise SchemaGenerationError(
            f"none of {self.generations} answers is a valid schema module; the last problem: {problem}"
        )

    async def _ask(self, messages: tuple[Message, ...]) -> tuple[Completion, str]:
        """Return the answer, or an empty one and the problem of a call that was billed but gave no answer."""
        try:
            return await self.calls.ask(self.client, ChatRequest("schema", messages, None)), ""
        except TransientError as broken:
            if not isinstance(broken.usage, TokenUsage) or is_free(broken):
                raise
            return Completion(text="", usage=broken.usage), str(broken)

    def _checked(self, completion: Completion) -> str:
        if completion.finish_reason == "length":
            raise AnswerError(
                FailureCause.CUT_OFF, "The answer was cut off at the length limit. Write a shorter module."
            )
        return self.check(python_of(completion.text))
