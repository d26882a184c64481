"""A batch on disk: its configuration file, and the prompts, schema and table that the file names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from llmbatch_assets.adapters.files.atomic import write_atomically
from llmbatch_assets.adapters.files.file_conflicts import ConfiguredPaths, find_conflicts, find_shared
from llmbatch_assets.adapters.files.yaml_files import is_in_postgres, load_parameters, load_prompt, read_text
from llmbatch_assets.adapters.providers.credentials import read_key
from llmbatch_assets.adapters.schema_module import load_schema
from llmbatch_assets.adapters.store.kept_values import KEPT
from llmbatch_assets.adapters.store.run_records import identity_as_kept
from llmbatch_assets.adapters.tables.formats import read_table
from llmbatch_assets.domain.canonical import sha1_named, sha1_text
from llmbatch_assets.domain.configuration.input_blocks import Input
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.domain.configuration.parameters import DEFAULT_BATCH, Parameters
from llmbatch_assets.domain.items.identity import BatchIdentity, request_settings
from llmbatch_assets.domain.items.prompt_columns import check_prompts, columns_of_prompts
from llmbatch_assets.domain.items.table import Snapshot, take_snapshot
from llmbatch_assets.domain.layout import Layout
from llmbatch_assets.domain.outcome import Source
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.prompt_warnings import prompt_warnings
from llmbatch_assets.domain.request import Conversations, completed_judge_prompt
from llmbatch_assets.domain.schema.contract import SchemaModels
from llmbatch_assets.errors import ConfigError, InputError, RunPermanentError, SchemaError, SharedFilesError

CONFIG_ENV = "LLMBATCH_PARAMETERS"
DEFAULT_TITLE = "LLM batch"
DEFAULT_CONFIG = PurePosixPath("configs/parameters.yaml")


def find_config(given: str | None, environment: Mapping[str, str], start: Path) -> Path:
    """Return the configuration file: as given, else from the environment, else the nearest upwards from ``start``.

    Raises ``ConfigError``.
    """
    named = given or environment.get(CONFIG_ENV)
    if named:
        path = (start / named).resolve()
        if not path.is_file():
            problem = "is a folder, not a file" if path.is_dir() else "does not exist"
            raise ConfigError(f"{named} {problem} (named by {'--config' if given else CONFIG_ENV})")
        return path
    if config := nearest_config(start):
        return config
    raise ConfigError(f"no {DEFAULT_CONFIG} in {start} or above; go to your project, or name a file with --config")


def nearest_config(start: Path) -> Path | None:
    """Return the configuration file of the project that contains ``start``; None if there is none."""
    found = (folder / DEFAULT_CONFIG for folder in (start, *start.parents) if (folder / DEFAULT_CONFIG).is_file())
    config = next(found, None)
    return config.resolve() if config else None


def config_files(config: Path) -> list[Path]:
    """Return a configuration file and, if it is in ``configs/``, the others there."""
    return sorted(config.parent.glob("*.yaml")) if config.parent.name == "configs" else [config]


@dataclass(frozen=True)
class BatchFile:
    """The configuration file of a batch. ``offline`` replaces its provider."""

    path: Path
    offline: bool = False

    @property
    def root(self) -> Path:
        """The project folder: the parent of ``configs/``, or the folder of a file outside ``configs/``."""
        folder = self.path.parent
        return folder.parent if folder.name == "configs" else folder

    def load(self) -> Batch:
        """Read the batch from its file. Raises ``ConfigError``, also if a run would overwrite a file of the user's.

        Raises ``SharedFilesError`` if a run would write files of another batch in ``configs/``.
        """
        batch = self.load_alone()
        own = ConfiguredPaths(self._relative(self.path), batch.layout)
        if found := find_conflicts(self.root, *own):
            raise ConfigError("\n".join(f"{self.path}: {conflict}" for conflict in found))
        if shared := self._shared_with_others(own):
            raise SharedFilesError("\n".join(f"{self.path}: {conflict}" for conflict in shared))
        return batch

    def _shared_with_others(self, own: ConfiguredPaths) -> list[str]:
        paths = [path for path in config_files(self.path) if path != self.path]
        layouts = [(path, layout) for path in paths if (layout := _layout_of(path)) is not None]
        return find_shared(self.root, own, [ConfiguredPaths(self._relative(path), layout) for path, layout in layouts])

    def _relative(self, path: Path) -> PurePosixPath:
        return PurePosixPath(path.relative_to(self.root).as_posix())

    def load_alone(self) -> Batch:
        """Read the batch from its file, without a look at other files. Raises ``ConfigError``."""
        if not re.fullmatch(r"\w+", self.path.stem, re.ASCII):
            raise ConfigError(
                f"{self.path}: the file name becomes a name in Dagster, so it may have only letters, digits and underscores; "
                f"rename the file to {re.sub(r'[^A-Za-z0-9_]+', '_', self.path.stem)}.yaml"
            )
        parameters = load_parameters(self.path)
        if self.offline:
            llm = parameters.llm.model_copy(update={"provider": "offline", "base_url": ""})
            parameters = parameters.model_copy(update={"llm": llm})
        return Batch(self.root, Layout(self.path.stem, parameters))


def _layout_of(config: Path) -> Layout | None:
    """Return the paths of another batch; None if its configuration is invalid, so that it cannot run."""
    try:
        status = config.stat()
        return _read_layout(config, status.st_mtime_ns, status.st_size, frozenset(os.environ.items()))
    except (ConfigError, OSError):
        return None


# Every batch is compared with all others whenever it is loaded.
@lru_cache(maxsize=256)
def _read_layout(config: Path, _changed: int, _size: int, _environment: frozenset[tuple[str, str]]) -> Layout:
    return BatchFile(config).load_alone().layout


@dataclass(frozen=True)
class Batch:
    """A batch: its parameters, its paths, and the user's files."""

    root: Path
    layout: Layout

    @property
    def name(self) -> str:
        return self.layout.batch

    @property
    def title(self) -> str:
        return self.parameters.run.name or (DEFAULT_TITLE if self.name == DEFAULT_BATCH else self.name)

    @property
    def command(self) -> str:
        """The command that runs this batch."""
        return "llmbatch run" if self.name == DEFAULT_BATCH else f"llmbatch run --config configs/{self.name}.yaml"

    @property
    def parameters(self) -> Parameters:
        return self.layout.parameters

    def path(self, relative: PurePosixPath | str) -> Path:
        return self.root / relative

    def shown(self, path: Path) -> str:
        """Return a path for artifacts and messages, relative to the project if it is inside."""
        return Path(os.path.relpath(path, self.root)).as_posix() if path.is_relative_to(self.root) else path.as_posix()

    def read_snapshot(self, *, is_last_use: bool = False) -> Snapshot:
        """Read and clean the input table, unless a check of this process kept it. Raises ``TableError``."""
        settings = self.parameters.input
        path, kind = self.path(settings.path), table_kind(settings)
        kept: Snapshot | None = KEPT.get(path, kind)
        if is_last_use:
            KEPT.drop(path, kind)
        return kept or take_snapshot(read_table(path, settings), settings.path, settings)

    def _prompt(self, name: str) -> PromptTemplate:
        path: str = getattr(self.parameters.prompts, name).path
        return load_prompt(self.path(path), path, f"prompts.{name}.path")

    @cached_property
    def generation_prompt(self) -> PromptTemplate:
        return self._prompt("generation")

    @cached_property
    def judge_prompt(self) -> PromptTemplate | None:
        return self._prompt("judge") if self.parameters.prompts.judge.enabled else None

    @cached_property
    def schema_prompt(self) -> PromptTemplate:
        return self._prompt("schema_auto_py_generation")

    def check_prompts(self, columns: Sequence[str]) -> None:
        """Raise ``PromptError`` if a prompt has a placeholder that is neither built in nor a column of the table."""
        check_prompts(self.generation_prompt, self.judge_prompt, columns, self.parameters)

    def prompt_warnings(self, columns: Sequence[str]) -> list[str]:
        """Return the warnings about the prompts, for a table with these columns."""
        return prompt_warnings(self.generation_prompt, self.judge_prompt, self.parameters, columns)

    def columns_of_prompts(self, columns: Sequence[str]) -> list[str]:
        """Return the columns that the prompts name; none if a prompt cannot be read, which does not affect the table."""
        try:
            return columns_of_prompts(self.generation_prompt, self.judge_prompt, columns, self.parameters)
        except InputError:
            return []

    @cached_property
    def schema(self) -> SchemaModels:
        """The checked models of the schema module. Raises ``SchemaError``."""
        trust = self.parameters.llm_schema.trust
        return load_schema(self.path(self.layout.schema_py), str(self.layout.schema_py), trust=trust)

    def check_schema(self) -> None:
        """Raise ``SchemaError`` if the module lacks a model that the batch needs."""
        self.schema.output()
        if self.parameters.prompts.judge.enabled:
            self.schema.judge()

    @cached_property
    def conversations(self) -> Conversations:
        """Prompts and schemas combined. Raises ``PromptError`` or ``SchemaError``."""
        judge_contract = self.schema.judge() if self.judge_prompt else None
        judge = completed_judge_prompt(self.judge_prompt) if self.judge_prompt else None
        return Conversations(self.generation_prompt, judge, self.schema.output(), judge_contract, self.schema.text())

    @cached_property
    def source(self) -> Source:
        """The origin of this batch's artifacts, which they record."""
        prompts, llm = self.parameters.prompts, self.parameters.llm
        return Source(
            identity=identity_as_kept(self.path(self.layout.provenance), self._identity()),
            provider=llm.provider,
            generation_prompt_path=prompts.generation.path,
            judge_prompt_path=prompts.judge.path if prompts.judge.enabled else None,
        )

    def _identity(self) -> BatchIdentity:
        llm = self.parameters.llm
        judge = self.judge_prompt
        return BatchIdentity(
            prompt_sha=self.generation_prompt.sha,
            schema_sha=self.schema.output().sha,
            model_name=llm.model_name,
            temperature=llm.temperature,
            settings=request_settings(llm) | {name: sha1_text(text) for name, text in self._shown_texts().items()},
            judge_enabled=judge is not None,
            judge_prompt_sha=judge.sha if judge else None,
            judge=self._judge_parts(self.parameters.judge_llm()) if judge else None,
        )

    def _shown_texts(self) -> dict[str, str]:
        """Return the schema texts that the generation prompt shows in addition to ``{llm_schema}``."""
        shown = {"llm_schema_txt": self.schema.text()}
        if self.judge_prompt:
            shown["judge_schema"] = self.schema.judge().text
        return {name: text for name, text in shown.items() if name in self.generation_prompt.placeholders}

    def _judge_parts(self, llm: Llm) -> dict[str, object]:
        return {
            "schema_sha": self.schema.judge().sha,
            "min_score": self.parameters.judge.min_score,
            **_own_settings(llm),
        }

    def model_settings_sha(self) -> str:
        """Fingerprint of the model, judge and request settings that affect outputs; prompts and schema have their own."""
        llm, judge_llm = self.parameters.llm, self.parameters.judge_llm()
        judged = self.parameters.prompts.judge.enabled
        return sha1_named(
            llm=_own_settings(llm),
            judge={**_own_settings(judge_llm), "min_score": self.parameters.judge.min_score} if judged else None,
        )

    def provenance(self) -> dict[str, object]:
        """Return the texts that this batch's identity refers to by hash, and the settings that make its items."""
        identity = self.source.identity
        kept_identity: dict[str, object] = identity.model_dump(mode="json")
        texts: dict[str, object] = {
            f"identity_{identity.sha}": kept_identity,
            f"items_{self.item_settings_sha()}": self.item_settings(),
            self.generation_prompt.sha: self.generation_prompt.model_dump(mode="json"),
        }
        if self.judge_prompt:
            texts[self.judge_prompt.sha] = self.judge_prompt.model_dump(mode="json")
            texts[self.schema.judge().sha] = self.schema.judge().json_schema
        texts |= {sha1_text(text): text for text in self._shown_texts().values()}
        if code_sha := self.schema.code_sha:
            # The code of a trusted module also validates. The schema's sha covers it without naming it.
            kept_identity["schema_code_sha"] = code_sha
            texts[code_sha] = read_text(self.path(self.layout.schema_py), SchemaError, "llm_schema.py_path")
        return texts | {self.schema.output().sha: self.schema.output().json_schema}

    def item_settings(self) -> dict[str, dict[str, object]]:
        """Return the configuration blocks that determine how rows become items."""
        blocks = ("input", "grouping", "context", "work_items")
        return {name: getattr(self.parameters, name).model_dump(mode="json") for name in blocks}

    def item_settings_sha(self) -> str:
        return sha1_named(**self.item_settings())

    def config_sha(self) -> str:
        return sha1_named(parameters=self.parameters.model_dump(mode="json"))


def _own_settings(llm: Llm) -> dict[str, object]:
    return {"model_name": llm.model_name, "temperature": llm.temperature, **request_settings(llm)}


def table_kind(settings: Input) -> str:
    """Return what a snapshot depends on besides the table's file."""
    return settings.model_dump_json()


def keys_in_use(batch: Batch) -> set[str]:
    """The API keys that calls of this batch use, as far as they are set."""
    keys = set()
    for name in batch.parameters.key_names():
        with suppress(RunPermanentError):
            keys.add(read_key(name, batch.root))
    return keys


def create_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files, given by their paths in ``folder``. Raises ``InputError``, before writing any, if one exists."""
    existing = [str(folder / name) for name in files if (folder / name).exists()]
    if existing:
        raise InputError(
            f"nothing was written, because these files exist: {', '.join(existing)}; choose another folder or move them"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder")
    for name, content in files.items():
        write_atomically(folder / name, content)


def prepare_dagster_home(home: Path, default_settings: bytes) -> bool:
    """Write ``dagster.yaml`` if the folder has none. Return whether the instance keeps its events in PostgreSQL.

    Raises ``ConfigError`` if the folder cannot be used.
    """
    settings = home / "dagster.yaml"
    try:
        if not settings.exists():
            write_atomically(settings, default_settings)
        return is_in_postgres(settings)
    except OSError as refused:
        raise ConfigError(f"DAGSTER_HOME is {home}, which cannot be used: {refused.strerror}") from refused
