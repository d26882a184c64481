"""Blocks of a configuration file about data and files. Those about models are in ``parameters``.

Descriptions are published as docs/configuration.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, model_validator

from llmbatch_assets.domain.grouping_modes import GROUPING_MODES, UNGROUPED, GroupingMode, selectable_modes
from llmbatch_assets.domain.text import composed, nearest

NULL_TOKENS = ("none", "nan", "n/a", "na", "null", "nil", "[none]", "[null]", "#n/a", "<na>", "nat")

# Normalized like the column names of the table.
ColumnName = Annotated[str, AfterValidator(composed)]


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as unknown:
        raise ValueError("no such time zone; use a name like Europe/Paris or UTC") from unknown
    return name


def _check_encoding(name: str) -> str:
    try:
        "".encode(name)
    except LookupError as unknown:
        raise ValueError("no such encoding; use a name like utf-8, cp1252 or shift_jis") from unknown
    return name


def _check_mode(name: str) -> str:
    known = list(selectable_modes())
    if name not in known:
        near = nearest(name, known)[:1]
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"must be {' or '.join(known)}{hint}")
    return name


class Block(BaseModel):
    """A block of the file. It is frozen and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def block_field(block: type[Block]) -> Any:
    """Return a field for a nested block that may be left out. The block's docstring describes it."""
    return Field(block(), description=block.__doc__)


class Run(Block):
    """Name, time zone and logging."""

    name: str = Field("", description="Title of the report; empty: the name of the batch.")
    timezone: Annotated[str, AfterValidator(_check_timezone)] = Field(
        "UTC", description="Time zone for times in the report, e.g. Asia/Tokyo."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Minimum level of messages in the terminal and the log file."
    )
    log_file: str = Field(
        "", description="Log file: the name of a file in artifacts.logs_dir, or a path with folders; empty: none."
    )
    run_id: str = Field("", description="Your name for the run; added to the Dagster runs as a tag.")


class Input(Block):
    """The input table."""

    path: str = Field("raw_data/input.csv", description="Path of the table, relative to the project root.")
    format: Literal["auto", "csv", "psv", "tsv", "xlsx", "jsonl", "parquet"] = Field(
        "auto", description="Table format; auto: from the file name's extension."
    )
    delimiter: str = Field("", max_length=1, description="Column separator; empty: the default of the format.")
    sheet: str | int = Field("", description="Workbook sheet, by name or by number from 1; empty: the only one.")
    encoding: Annotated[str, AfterValidator(_check_encoding)] = Field(
        "utf-8", description="Encoding of a delimited file. A byte order mark is allowed."
    )
    required_columns: tuple[ColumnName, ...] = Field((), description="Columns that the table must have.")
    null_tokens: tuple[str, ...] = Field(NULL_TOKENS, description="Values treated as empty cells, ignoring case.")
    collapse_whitespace: bool = Field(True, description="Replace line breaks and tabs inside a cell with one space.")
    records_alias: bool = Field(True, description="Repeat the rows of the snapshot under the key records.")


class Grouping(Block):
    """Grouping of rows. Each row or each group gets an output."""

    enabled: bool = Field(False, description="false: every row is a separate item.")
    column: ColumnName = Field("", description="Rows with the same value in this column form a group.")
    mode: Annotated[str, AfterValidator(_check_mode)] = Field(
        "row_output_with_group_context",
        description="; ".join(f"{name}: {mode.effect}" for name, mode in selectable_modes().items()) + ".",
        json_schema_extra={"enum": list(selectable_modes())},
    )
    max_rows_per_group: int = Field(0, ge=0, description="Maximum number of rows shown in a group's context; 0: all.")

    @model_validator(mode="after")
    def _has_column(self) -> Grouping:
        if self.active_mode.needs_column and not self.column:
            raise ValueError("grouping.enabled is true, so grouping.column must name a column")
        return self

    @property
    def active_mode(self) -> GroupingMode:
        return GROUPING_MODES[self.mode] if self.enabled else UNGROUPED


class Columns(Block):
    """Column selection."""

    mode: Literal["all", "include", "exclude"] = Field("all", description="The columns that the model sees.")
    include: tuple[ColumnName, ...] = Field((), description="For mode include: the columns, in this order.")
    exclude: tuple[ColumnName, ...] = Field((), description="Columns that the model never sees, in any mode.")

    @model_validator(mode="after")
    def _has_columns(self) -> Columns:
        if self.mode == "include" and not self.include:
            raise ValueError("columns.mode is include, so columns.include must name at least one column")
        return self


class Context(Block):
    """The text of rows and groups that the model sees."""

    columns: Columns = block_field(Columns)
    row_template: str = Field(
        "{__ROW_KV_BLOCK__}", description="Template for a row; {__ROW_KV_BLOCK__} stands for its `column: value` lines."
    )
    auto_kv_block: bool = Field(True, description="Append the `column: value` lines if row_template omits them.")
    kv_order: Literal["input_order", "alpha"] = Field("input_order", description="Order of the `column: value` lines.")
    max_context_chars: int = Field(0, ge=0, description="Truncate a context after this many characters; 0: no limit.")
    truncate_field_chars: int = Field(0, ge=0, description="Truncate a value after this many characters; 0: no limit.")
    group_header_template: str = Field(
        "{group_key} ({n_rows} rows)",
        description="First line of a group's context, with the placeholders {group_key} and {n_rows}; empty: none.",
    )
    group_footer_template: str = Field(
        "", description="Last line of a group's context, with the same placeholders; empty: none."
    )


class WorkItemsBlock(Block):
    """Names of items, and how identical items are treated."""

    label_column: ColumnName = Field(
        "", description="Column whose value starts the partition key; empty: the group key."
    )
    duplicates: Literal["separate", "share"] = Field(
        "separate", description="Identical items; separate: one output each; share: one call and one output for all."
    )


class GenerationPrompt(Block):
    """The prompt that asks for an output."""

    path: str = Field("prompts/generation.yaml", description="Generation prompt file, relative to the project root.")


class JudgePrompt(Block):
    """The prompt that asks for a verdict."""

    enabled: bool = Field(False, description="Judge every valid output, and accept only those that pass.")
    path: str = Field("prompts/judge.yaml", description="Judge prompt file.")


class SchemaPrompt(Block):
    """The prompt that asks for a schema module."""

    path: str = Field("prompts/schema_auto_py_generation.yaml", description="Schema prompt file.")


class UnusedPrompt(Block):
    """A prompt that is not used: the schema text is written without a model."""

    path: str = Field("", description="Accepted for compatibility; has no effect.")


class Prompts(Block):
    """Prompt files."""

    generation: GenerationPrompt = block_field(GenerationPrompt)
    judge: JudgePrompt = block_field(JudgePrompt)
    schema_auto_py_generation: SchemaPrompt = block_field(SchemaPrompt)
    schema_auto_json_summarization: UnusedPrompt = block_field(UnusedPrompt)


class LlmSchema(Block):
    """The schema that every output must match."""

    py_path: str = Field(
        "",
        validation_alias=AliasChoices("py_path", "path"),
        description="Python module with the Pydantic model LLMOutput; empty: schema/llm_schema.py (or schema/<batch>/llm_schema.py).",
    )
    txt_path: str = Field(
        "", description="File for the JSON Schema generated from the module; empty: next to the module."
    )
    auto_generate: bool = Field(True, description="If the module is missing, the model writes it.")
    force_regenerate: bool = Field(
        False, description="Rewrite the module once after each change of prompts, task or model."
    )
    task: str = Field(
        "", description="Purpose of the outputs, in your own words; replaces {task} in the schema prompt."
    )
    archive_dir: str = Field("", description="Folder for replaced schema files; empty: archived (or archived/<batch>).")
    trust: bool = Field(False, description="true: run the module, including validators; false: only parse it.")
    on_mismatch: Literal["regenerate", "error"] = Field(
        "regenerate",
        description="What to do if the text does not match the module; regenerate: archive and rewrite the text; error: stop.",
    )


class Cache(Block):
    """The cache of accepted outputs."""

    enabled: bool = Field(True, description="false: every selected item is generated again.")
    force: bool = Field(
        False,
        description="true: every run regenerates its items, as with --force. Once it is false again, the next run regenerates the items that such a run did not reach.",
    )
    dir: str = Field(
        "", validation_alias=AliasChoices("dir", "artifact_dir"), description="Cache folder; empty: <dir>/cache."
    )
    dump_failures: bool = Field(
        True, description="Write a file for every failed attempt. Without it, a failed item counts as not attempted."
    )
    verbose: int = Field(3, ge=0, le=10, description="Number of progress lines; 0: none; 10: one per item.")


class Artifacts(Block):
    """Folders for the files that a run writes."""

    dir: str = Field("", description="Folder for all artifacts; empty: artifacts (or artifacts/<batch>).")
    outputs_dir: str = Field("", description="Folder for the exports; empty: <dir>/outputs.")
    reports_dir: str = Field("", description="Folder for the reports; empty: <dir>/reports.")
    logs_dir: str = Field("", description="Folder for run.log_file; empty: <dir>/logs.")


class Explode(Block):
    """For group_output: one record per element of a list in the output, joined to its row."""

    list: str = Field("", description="Output field that holds the list; empty: do not split outputs.")
    item_key: str = Field("", description="Field of an element that identifies its row.")
    input_column: ColumnName = Field("", description="Table column with the matching value.")

    @model_validator(mode="after")
    def _is_complete(self) -> Explode:
        given = [name for name in type(self).model_fields if getattr(self, name)]
        if given and len(given) < len(type(self).model_fields):
            raise ValueError("explode needs all three: list, item_key and input_column")
        return self


class Outputs(Block):
    """The exported files."""

    formats: tuple[Literal["csv", "psv", "tsv", "jsonl", "xlsx", "parquet"], ...] = Field(
        ("psv", "jsonl"), description="Formats to export; one file each."
    )
    csv_path: str = Field("", description="Path of the csv file; empty: <outputs_dir>/output.csv")
    psv_path: str = Field("", description="Path of the psv file; empty: <outputs_dir>/output.psv")
    tsv_path: str = Field("", description="Path of the tsv file; empty: <outputs_dir>/output.tsv")
    jsonl_path: str = Field("", description="Path of the jsonl file; empty: <outputs_dir>/output.jsonl")
    xlsx_path: str = Field("", description="Path of the xlsx file; empty: <outputs_dir>/output.xlsx")
    parquet_path: str = Field("", description="Path of the parquet file; empty: <outputs_dir>/output.parquet")
    not_exported_path: str = Field(
        "",
        description="Path of the file that lists items that were not exported, with reasons; empty: <outputs_dir>/output_not_exported.csv",
    )
    nested: Literal["json", "flatten"] = Field(
        "json", description="Objects inside an output; json: one cell of JSON; flatten: one column per field."
    )
    escape_formulas: bool = Field(True, description="In csv and tsv, put ' before cells that look like formulas.")
    group_rows: Literal["one", "expand"] = Field(
        "one", description="For group_output; one: one record per group; expand: one record per row that the model saw."
    )
    explode: Explode = block_field(Explode)

    @model_validator(mode="after")
    def _is_consistent(self) -> Outputs:
        named = [getattr(self, name) for name in type(self).model_fields if name.endswith("_path")]
        repeated = next((path for path in named if path and named.count(path) > 1), "")
        if repeated:
            raise ValueError(f"two files cannot both be {repeated}; give each its own path")
        if self.explode.list and self.group_rows == "expand":
            raise ValueError("outputs.explode already splits groups into records; leave outputs.group_rows at one")
        return self

    @property
    def spreads_groups(self) -> bool:
        """True if the output of a group can become several records."""
        return self.group_rows == "expand" or bool(self.explode.list)


class Report(Block):
    """The report."""

    enabled: bool = Field(True, description="false: no report is written.")
    md_path: str = Field("", description="Path of the Markdown report; empty: <reports_dir>/report.md")
    html_path: str = Field("", description="Path of the HTML report; empty: <reports_dir>/report.html")
    write_html: bool = Field(True, description="false: Markdown only.")
    base_url: str = Field(
        "",
        description="Address under which the folder of the HTML report is served. Dagster links each item to its place "
        "there; without it, to the file, which browsers open only if you copy the address.",
    )
    sample_per_group: int = Field(
        2,
        ge=0,
        validation_alias=AliasChoices("sample_per_group", "sample_per_role"),
        description="Sample outputs shown per group.",
    )
    include_full_examples: bool = Field(True, description="Show whole outputs instead of their first characters.")
    max_reason_examples: int = Field(
        5, ge=0, description="Maximum number of examples for each failure cause and for each reason given by the judge."
    )
    count_by: tuple[ColumnName, ...] = Field(
        (), description="Table columns and output fields whose values are counted."
    )
