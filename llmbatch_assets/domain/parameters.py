"""What a ``configs/*.yaml`` file may say. Every key has a default and a description; unknown keys are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from llmbatch_assets.domain.text import composed

DEFAULT_BATCH = "parameters"
NULL_TOKENS = ("none", "nan", "n/a", "na", "null", "nil", "[none]", "[null]", "#n/a", "<na>", "nat")

GroupingMode = Literal["group_output", "row_output_with_group_context"]
StructuredOutput = Literal["auto", "json_schema", "json_object", "prompt"]


# In the form in which the table's own names are kept.
ColumnName = Annotated[str, AfterValidator(composed)]


class Block(BaseModel):
    """A block of the file: frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


GEMINI_BASE_URL = "https://generativelanguage.googleapis.com/v1beta/openai/"
OPENAI_BASE_URL = "https://api.openai.com/v1"
# What provider local serves.
LOCAL_MODEL = "SmolLM2-135M-Instruct"


def _server(url: str | None) -> str | None:
    if not url:
        return url
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be the address of a server, e.g. http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("must hold no user, password or query: keys go into an environment variable (api_key_env)")
    return url


def _variable_name(name: str | None) -> str | None:
    # Capitals only: keys have small letters, and a key that is taken for a name ends up in a log.
    if name and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,79}", name):
        raise ValueError("must be the NAME of an environment variable in capitals, e.g. OPENAI_API_KEY, never the key")
    return name


# Names under which a request may carry a key. What is sent so is part of every artifact's identity.
_SECRET = re.compile(
    r"api[-_]?key|authori[sz]ation|secret|password|credential|(?:access|auth|bearer)[-_]?token", re.IGNORECASE
)


def _without_keys(body: dict[str, Any]) -> dict[str, Any]:
    """Further fields of a request. Raises ``ValueError`` where one is named like a secret."""
    for name in _names(body):
        if _SECRET.search(name):
            raise ValueError(f"must hold no keys: {name} belongs into an environment variable (api_key_env)")
    return body


def _names(value: Any) -> Iterator[str]:
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    yield from map(str, value if isinstance(value, dict) else ())
    for part in parts:
        yield from _names(part)


class Run(Block):
    """Name, time zone and logging."""

    name: str = Field("", description="Title of the report; empty: the batch's name.")
    timezone: str = Field("UTC", description="Time zone of the times shown in the report, e.g. Asia/Tokyo.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="What the console and the log file show."
    )
    log_file: str = Field(
        "", description="Log file: a name in artifacts.logs_dir, or a path with folders; empty: no file is written."
    )
    run_id: str = Field("", description="A name of your own for the run; becomes a tag of the Dagster runs.")

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as unknown:
            raise ValueError("no such time zone; use a name like Europe/Paris or UTC") from unknown
        return name


class Input(Block):
    """The table."""

    path: str = Field("raw_data/input.csv", description="The table, relative to the project root.")
    format: Literal["auto", "csv", "psv", "tsv", "xlsx", "jsonl", "parquet"] = Field(
        "auto", description="Table format; auto: by the file's suffix."
    )
    delimiter: str = Field("", max_length=1, description="What separates columns; empty: as the format says.")
    sheet: str | int = Field("", description="Sheet of a workbook, by name or by number from 1; empty: its only one.")
    encoding: str = Field("utf-8", description="Encoding of a delimited file; a byte order mark is accepted.")
    required_columns: tuple[ColumnName, ...] = Field((), description="Columns without which the run does not start.")
    null_tokens: tuple[str, ...] = Field(NULL_TOKENS, description="Cells that mean nothing, compared without case.")
    collapse_whitespace: bool = Field(True, description="Line breaks and tabs inside a cell become one space.")
    records_alias: bool = Field(True, description="Repeat the snapshot's rows under the key records.")

    @field_validator("encoding")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            "".encode(name)
        except LookupError as unknown:
            raise ValueError("no such encoding; use a name like utf-8, cp1252 or shift_jis") from unknown
        return name


class Grouping(Block):
    """Which rows belong together, and what comes of it."""

    enabled: bool = Field(False, description="false: every row is an item of its own.")
    column: ColumnName = Field("", description="The column whose equal values make a group.")
    mode: GroupingMode = Field(
        "row_output_with_group_context",
        description="group_output: one item per group; row_output_with_group_context: one item per row that also "
        "sees its group.",
    )
    max_rows_per_group: int = Field(0, ge=0, description="Rows shown in a group's context; 0: all.")

    @model_validator(mode="after")
    def _has_column(self) -> Grouping:
        if self.enabled and not self.column:
            raise ValueError("grouping.enabled is true, so grouping.column must name a column")
        return self

    @property
    def effective_mode(self) -> str:
        """The name of the grouping in force, a key of ``GROUPINGS``."""
        return self.mode if self.enabled else "row_wise"


class Columns(Block):
    """Column selection."""

    mode: Literal["all", "include", "exclude"] = Field("all", description="Which columns the model sees.")
    include: tuple[ColumnName, ...] = Field((), description="The columns, in this order, for mode include.")
    exclude: tuple[ColumnName, ...] = Field((), description="Columns that the model never sees, in every mode.")

    @model_validator(mode="after")
    def _has_columns(self) -> Columns:
        if self.mode == "include" and not self.include:
            raise ValueError("columns.mode is include, so columns.include must name at least one column")
        return self


class Context(Block):
    """What the model sees of a row and of a group."""

    columns: Columns = Field(default_factory=Columns, description="Column selection.")
    row_template: str = Field(
        "{__ROW_KV_BLOCK__}", description="A row as text: {__ROW_KV_BLOCK__} is its `column: value` lines."
    )
    auto_kv_block: bool = Field(True, description="Append the lines where row_template leaves them out.")
    kv_order: Literal["input_order", "alpha"] = Field("input_order", description="Order of the lines.")
    max_context_chars: int = Field(0, ge=0, description="Longest context; the rest is cut and marked. 0: no limit.")
    truncate_field_chars: int = Field(0, ge=0, description="Longest value; the rest is cut and marked. 0: no limit.")
    group_header_template: str = Field(
        "{group_key} ({n_rows} rows)", description="First line of a group's context: {group_key}, {n_rows}."
    )
    group_footer_template: str = Field("", description="Last line of a group's context; empty: none.")


class WorkItemsBlock(Block):
    """Names of items, and what identical ones mean."""

    label_column: ColumnName = Field(
        "", description="Column whose value begins the partition key; empty: the group key."
    )
    duplicates: Literal["separate", "share"] = Field(
        "separate", description="Identical items: separate outputs, or one call that serves them all."
    )


class GenerationPrompt(Block):
    """The prompt that asks for an output."""

    path: str = Field("prompts/generation.yaml", description="The prompt file, relative to the project root.")


class JudgePrompt(Block):
    """The prompt that asks for a verdict."""

    enabled: bool = Field(False, description="Judge every valid output; only what passes is kept.")
    path: str = Field("prompts/judge.yaml", description="The judge's prompt file.")


class SchemaPrompt(Block):
    """The prompt that asks for a schema module."""

    path: str = Field("prompts/schema_auto_py_generation.yaml", description="The schema prompt file.")


class UnusedPrompt(Block):
    """A prompt that earlier systems had, and that nothing here asks with."""

    path: str = Field("", description="Accepted and without effect.")


class Prompts(Block):
    """Prompt files."""

    generation: GenerationPrompt = Field(default_factory=GenerationPrompt, description="What asks for an output.")
    judge: JudgePrompt = Field(default_factory=JudgePrompt, description="What asks for a verdict.")
    schema_auto_py_generation: SchemaPrompt = Field(
        default_factory=SchemaPrompt, description="What asks for a schema module."
    )
    schema_auto_json_summarization: UnusedPrompt = Field(
        default_factory=UnusedPrompt, description="Accepted and without effect: the text is made without a model."
    )


class LlmSchema(Block):
    """The contract of the outputs."""

    py_path: str = Field(
        "",
        validation_alias=AliasChoices("py_path", "path"),
        description="The Pydantic module with LLMOutput; empty: schema/llm_schema.py (or schema/<batch>/llm_schema.py).",
    )
    txt_path: str = Field("", description="Its JSON schema as text, written from the module; empty: beside it.")
    auto_generate: bool = Field(True, description="Have the model write the module where it is missing.")
    force_regenerate: bool = Field(
        False, description="Have it written anew, once for each change of the prompts, the task or the model."
    )
    task: str = Field("", description="What the outputs are for, in your words; {task} in the schema prompt.")
    archive_dir: str = Field("", description="Where replaced schema files go; empty: archived (or archived/<batch>).")
    trust: bool = Field(False, description="Run the module as it is, validators and all; else it is only read.")
    on_mismatch: Literal["regenerate", "error"] = Field(
        "regenerate", description="Where the text does not match the module: archive and rewrite it, or stop."
    )


class Llm(Block):
    """Provider, model, sampling and patience."""

    provider: Literal["openai", "local", "offline"] = Field(
        "openai",
        description="openai: any OpenAI-compatible server; local: the embedded model; offline: made-up answers, no call.",
    )
    model_name: str = Field("gpt-4o-mini", min_length=1, description="The model.")
    base_url: str = Field("", description="The server, e.g. http://127.0.0.1:8000/v1; empty: by the model's name.")
    api_key_env: str = Field("", description="Name of the environment variable that holds the key.")
    temperature: float | None = Field(1.0, ge=0, le=2, description="Sampling temperature; null: not sent.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling; null: not sent.")
    seed: int | None = Field(None, description="Sampling seed; null: not sent.")
    max_output_tokens: int | None = Field(None, ge=1, description="Longest answer in tokens; null: not sent.")
    structured_output: StructuredOutput = Field(
        "auto", description="How JSON is asked for; auto: the strictest way that the server takes."
    )
    max_retries: int = Field(3, ge=1, description="Generations per item and run, the first included.")
    runner_max_retries: int = Field(3, ge=1, description="Tries to get a readable verdict from the judge.")
    transport_retries: int = Field(4, ge=0, description="Further tries of a call that failed in transit.")
    timeout_sec: float = Field(120, gt=0, description="Longest time for one call, in seconds.")
    max_failures: int = Field(0, ge=0, description="The run stops after so many failed items; 0: no limit.")
    max_failure_rate: float = Field(
        0.0, ge=0, le=1, description="The run stops where a larger share of its items fails, after 20; 0: no limit."
    )
    max_workers: int = Field(8, ge=1, le=4096, description="Calls in flight.")
    requests_per_minute: int = Field(0, ge=0, description="Calls begun in a minute, evenly spread; 0: no limit.")
    tokens_per_minute: int = Field(
        0, ge=0, description="Input and output tokens of the calls begun in a minute, evenly spread; 0: no limit."
    )
    extra_body: dict[str, Any] = Field(default_factory=dict, description="Further fields of the request's body.")
    silence_client_lv_logs: bool = Field(True, description="Keep the HTTP client's own log lines out.")

    _names_a_variable = field_validator("api_key_env")(_variable_name)
    _names_a_server = field_validator("base_url")(_server)
    _holds_no_key = field_validator("extra_body")(_without_keys)

    @property
    def endpoint(self) -> str:
        """Base URL of the server that is called; without one of one's own it is told by the model's name."""
        return self.base_url or (GEMINI_BASE_URL if self.model_name.startswith("gemini-") else OPENAI_BASE_URL)

    @property
    def key_name(self) -> str:
        """Name of the key's environment variable; a server of one's own has no key unless one is named."""
        usual = {GEMINI_BASE_URL: "GEMINI_API_KEY", OPENAI_BASE_URL: "OPENAI_API_KEY"}
        return self.api_key_env or ("" if self.base_url else usual[self.endpoint])


class Judge(Block):
    """Where the judge differs from ``llm``."""

    min_score: int = Field(0, ge=0, le=100, description="A verdict below this score is a rejection.")
    model_name: str | None = Field(None, description="The judge's model; null: llm.model_name.")
    base_url: str | None = Field(None, description="The judge's server; null: llm.base_url.")
    api_key_env: str | None = Field(None, description="The judge's key variable; null: llm.api_key_env.")
    temperature: float | None = Field(None, ge=0, le=2, description="The judge's temperature; null: llm.temperature.")
    top_p: float | None = Field(None, gt=0, le=1, description="null: llm.top_p.")
    seed: int | None = Field(None, description="null: llm.seed.")
    max_output_tokens: int | None = Field(None, ge=1, description="null: llm.max_output_tokens.")
    requests_per_minute: int | None = Field(
        None, ge=0, description="For a judge with a model or server of its own; null: llm.requests_per_minute."
    )
    tokens_per_minute: int | None = Field(
        None, ge=0, description="For a judge with a model or server of its own; null: llm.tokens_per_minute."
    )

    _names_a_variable = field_validator("api_key_env")(_variable_name)
    _names_a_server = field_validator("base_url")(_server)


class Cache(Block):
    """The cache of accepted outputs."""

    enabled: bool = Field(True, description="false: every selected item is generated again.")
    force: bool = Field(
        False,
        description="true: every run generates its items again, as with --force; false then goes on with what such a run has left.",
    )
    dir: str = Field(
        "", validation_alias=AliasChoices("dir", "artifact_dir"), description="Cache folder; empty: <dir>/cache."
    )
    dump_failures: bool = Field(
        True, description="Keep a file of every failed attempt; without it a failed item counts as not attempted."
    )
    verbose: int = Field(3, ge=0, le=10, description="0: silent; 10: a log line per item.")


class Artifacts(Block):
    """Where files go."""

    dir: str = Field("", description="Folder of everything that is written; empty: artifacts (or artifacts/<batch>).")
    outputs_dir: str = Field("", description="Folder of the exports; empty: <dir>/outputs.")
    reports_dir: str = Field("", description="Folder of the reports; empty: <dir>/reports.")
    logs_dir: str = Field("", description="Folder of run.log_file; empty: <dir>/logs.")


class Explode(Block):
    """Where the output about a group holds a list with an element for each of its rows."""

    list: str = Field("", description="The field of the output that holds the list; empty: the output stays whole.")
    item_key: str = Field("", description="The field of an element that says which row it is about.")
    input_column: ColumnName = Field("", description="The column of the table that holds the same value.")

    @model_validator(mode="after")
    def _is_whole(self) -> Explode:
        given = [name for name in type(self).model_fields if getattr(self, name)]
        if given and len(given) < len(type(self).model_fields):
            raise ValueError("explode needs all three: list, item_key and input_column")
        return self


class Outputs(Block):
    """The export."""

    formats: tuple[Literal["csv", "psv", "tsv", "jsonl", "xlsx", "parquet"], ...] = Field(
        ("psv", "jsonl"), description="The files that the export writes."
    )
    csv_path: str = Field("", description="empty: <outputs_dir>/output.csv")
    psv_path: str = Field("", description="empty: <outputs_dir>/output.psv")
    tsv_path: str = Field("", description="empty: <outputs_dir>/output.tsv")
    jsonl_path: str = Field("", description="empty: <outputs_dir>/output.jsonl")
    xlsx_path: str = Field("", description="empty: <outputs_dir>/output.xlsx")
    parquet_path: str = Field("", description="empty: <outputs_dir>/output.parquet")
    not_exported_path: str = Field(
        "", description="What is in no export, and why; empty: <outputs_dir>/output_not_exported.csv"
    )
    nested: Literal["json", "flatten"] = Field(
        "json", description="Objects inside an output: one cell of JSON, or a column for each of their fields."
    )
    escape_formulas: bool = Field(
        True, description="Write csv and tsv cells that a spreadsheet would run with an apostrophe in front."
    )
    group_rows: Literal["one", "expand"] = Field(
        "one", description="For group_output: one record per group, or one per row that the group's output was made of."
    )
    explode: Explode = Field(
        default_factory=Explode,
        description="For group_output: one record per element of a list in the output, beside the row it is about.",
    )

    @model_validator(mode="after")
    def _paths_differ(self) -> Outputs:
        named = [getattr(self, name) for name in type(self).model_fields if name.endswith("_path")]
        repeated = next((path for path in named if path and named.count(path) > 1), "")
        if repeated:
            raise ValueError(f"two files cannot both be {repeated}; give each a path of its own")
        return self

    @model_validator(mode="after")
    def _one_way_out_of_groups(self) -> Outputs:
        if self.explode.list and self.group_rows == "expand":
            raise ValueError("outputs.explode makes the records itself; leave outputs.group_rows at one")
        return self

    @property
    def spreads_groups(self) -> bool:
        """Whether the output of a group can become several records."""
        return self.group_rows == "expand" or bool(self.explode.list)


class Report(Block):
    """The report."""

    enabled: bool = Field(True, description="false: no report is written.")
    md_path: str = Field("", description="empty: <reports_dir>/report.md")
    html_path: str = Field("", description="empty: <reports_dir>/report.html")
    write_html: bool = Field(True, description="false: Markdown only.")
    sample_per_group: int = Field(
        2,
        ge=0,
        validation_alias=AliasChoices("sample_per_group", "sample_per_role"),
        description="Outputs shown per group.",
    )
    include_full_examples: bool = Field(True, description="Show whole outputs, not only their first characters.")
    max_reason_examples: int = Field(
        5, ge=0, description="Examples shown per cause of failure and per reason of the judge."
    )
    count_by: tuple[ColumnName, ...] = Field(
        (), description="Columns of the table and fields of the output whose values are counted."
    )


class ModelPrice(Block):
    """A model's prices, in US dollars per million tokens."""

    input: float = Field(ge=0, description="Input tokens.")
    cached_input: float | None = Field(
        None, ge=0, description="Input tokens from the provider's cache; null: as input."
    )
    output: float = Field(ge=0, description="Output tokens, those of reasoning included.")


class Budget(Block):
    """What one run may take at most. What it has done by then is kept, and the next run goes on."""

    max_cost_usd: float = Field(0, ge=0, description="Cost in US dollars, calls in flight included; 0: no limit.")
    max_items: int = Field(0, ge=0, description="Items to work on; 0: no limit.")
    prices: dict[str, ModelPrice] = Field(
        default_factory=dict, description="Prices by model name, before those of the installed price list."
    )


class Checks(Block):
    """From when on outputs are good enough. What falls short is shown on the asset in Dagster."""

    min_acceptance: float = Field(
        0.0, ge=0, le=1, description="Share of the attempted items that must have an accepted output; at 0 one has to."
    )
    min_judge_score: float = Field(0.0, ge=0, le=100, description="The judge's mean score must be at least this.")
    block_export: bool = Field(
        False, description="No export while a check on the outputs has failed, or where none has been made yet."
    )


class Parameters(Block):
    """One batch: everything that its user decides."""

    run: Run = Field(default_factory=Run, description="Name and logging.")
    input: Input = Field(default_factory=Input, description="The table.")
    grouping: Grouping = Field(default_factory=Grouping, description="Which rows belong together.")
    context: Context = Field(default_factory=Context, description="What the model sees of a row.")
    work_items: WorkItemsBlock = Field(default_factory=WorkItemsBlock, description="Names and duplicates of items.")
    prompts: Prompts = Field(default_factory=Prompts, description="Prompt files.")
    llm_schema: LlmSchema = Field(default_factory=LlmSchema, description="The contract of the outputs.")
    llm: Llm = Field(default_factory=Llm, description="Provider, model and sampling.")
    judge: Judge = Field(default_factory=Judge, description="Where the judge differs from llm.")
    cache: Cache = Field(default_factory=Cache, description="The cache of accepted outputs.")
    artifacts: Artifacts = Field(default_factory=Artifacts, description="Where files go.")
    outputs: Outputs = Field(default_factory=Outputs, description="The export.")
    report: Report = Field(default_factory=Report, description="The report.")
    checks: Checks = Field(default_factory=Checks, description="From when on outputs are good enough.")
    budget: Budget = Field(default_factory=Budget, description="What a run may take at most.")

    @model_validator(mode="after")
    def _servers_are_used(self) -> Parameters:
        if self.llm.provider != "openai" and (self.llm.base_url or self.judge.base_url):
            raise ValueError(f"base_url has no effect with llm.provider {self.llm.provider}; use provider: openai")
        return self

    @model_validator(mode="after")
    def _local_models_are_there(self) -> Parameters:
        asked = {"llm.model_name": self.llm.model_name, "judge.model_name": self.judge.model_name or LOCAL_MODEL}
        foreign = [key for key, name in asked.items() if name != LOCAL_MODEL]
        if self.llm.provider == "local" and foreign:
            raise ValueError(
                f"llm.provider local has one model, so {foreign[0]} must be {LOCAL_MODEL} (found {asked[foreign[0]]!r}); "
                "for another model use provider: openai, with the server's address in llm.base_url"
            )
        return self

    @model_validator(mode="after")
    def _judges_pace_is_its_own(self) -> Parameters:
        named = self.judge.model_dump(include={"requests_per_minute", "tokens_per_minute"}, exclude_none=True)
        if named and self.judge_shares_server():
            raise ValueError(
                f"judge.{next(iter(named))} is for a judge with a model_name or base_url of its own; this one's calls "
                "count as those of llm"
            )
        return self

    def judge_shares_server(self) -> bool:
        """Whether generations and verdicts are asked of the same model at the same place."""
        judge = self.judge_llm()
        return (judge.endpoint, judge.model_name) == (self.llm.endpoint, self.llm.model_name)

    def judge_llm(self) -> Llm:
        """The settings of the judge's calls: those of ``llm`` but for what ``judge`` sets."""
        own = self.judge.model_dump(exclude={"min_score"}, exclude_none=True)
        judge = self.llm.model_copy(update=own)
        if "api_key_env" not in own and judge.endpoint != self.llm.endpoint:
            # The key of one server is never shown to another.
            return judge.model_copy(update={"api_key_env": ""})
        return judge

    def key_names(self) -> set[str]:
        """Names of the keys that calls of the batch need."""
        if self.llm.provider != "openai":
            return set()
        judge = {self.judge_llm().key_name} if self.prompts.judge.enabled else set()
        return ({self.llm.key_name} | judge) - {""}


def read_parameters(mapping: dict[str, Any]) -> Parameters:
    """Parameters from a parsed file, types taken strictly. Raises ``pydantic.ValidationError``."""
    # A block whose keys are all commented out is None in YAML.
    blocks = {name: block for name, block in mapping.items() if block is not None}
    return Parameters.model_validate_json(json.dumps(blocks, default=str, allow_nan=False), strict=True)
