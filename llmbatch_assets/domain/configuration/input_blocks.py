"""Blocks of a configuration file about the run, the input table and the work items.

Descriptions are published as docs/configuration.md.
"""

from __future__ import annotations

from itertools import count
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from llmbatch_assets.domain.configuration.block import Block, ColumnName, block_field
from llmbatch_assets.domain.grouping_modes import GROUPING_MODES, UNGROUPED, GroupingMode, selectable_modes
from llmbatch_assets.domain.text import nearest

NULL_TOKENS = ("none", "nan", "n/a", "na", "null", "nil", "[none]", "[null]", "#n/a", "<na>", "nat")


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


def _backslash_by_name(escape: object) -> object:
    return "backslash" if escape == "\\" else escape


def _check_mode(name: str) -> str:
    known = list(selectable_modes())
    if name not in known:
        near = nearest(name, known)[:1]
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"must be {' or '.join(known)}{hint}")
    return name


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
    header_row: int = Field(
        0,
        ge=0,
        description="Row of the file that names the columns, counted from 1; the rows above it are not read. 0: the first row "
        "(for csv, tsv, psv and xlsx).",
    )
    skip_rows: Annotated[int, Field(ge=0)] | tuple[Annotated[int, Field(ge=1)], ...] = Field(
        0,
        description="Rows of the file that are not read: 3 for the first three, or a list of row numbers from 1, such as "
        "[1, 4] (for csv, tsv, psv and xlsx).",
    )
    skip_empty_rows: bool = Field(
        True, description="Create no item for a row that is empty in every column. Other rows keep their numbers."
    )
    quoting: Literal["auto", "quoted", "none"] = Field(
        "auto",
        description="Quotes in a delimited file; quoted: a cell may be quoted; none: quotes are plain text; auto: like quoted, "
        "but an error if the file seems to use another dialect.",
    )
    escape: Annotated[Literal["auto", "backslash", "none"], BeforeValidator(_backslash_by_name)] = Field(
        "auto",
        description="Backslashes in a delimited file; backslash: they escape a quote, delimiter, backslash or line break; none: "
        "they are plain text; auto: they escape a delimiter in a cell without quotes.",
    )
    sheet: str | int = Field("", description="Workbook sheet, by name or by number from 1; empty: the only one.")
    encoding: Annotated[str, AfterValidator(_check_encoding)] = Field(
        "utf-8", description="Encoding of a delimited file. A byte order mark is allowed."
    )
    max_expanded_mb: int = Field(
        1_000,
        ge=1,
        description="Maximum size in megabytes to which a table may expand in memory (xlsx, parquet, jsonl).",
    )
    required_columns: tuple[ColumnName, ...] = Field((), description="Columns that the table must have.")
    null_tokens: tuple[str, ...] = Field(NULL_TOKENS, description="Values treated as empty cells, ignoring case.")
    collapse_whitespace: bool = Field(True, description="Replace line breaks and tabs inside a cell with one space.")
    records_alias: bool = Field(True, description="Repeat the rows of the snapshot under the key records.")

    @model_validator(mode="after")
    def _reads_header(self) -> Input:
        if 0 < self.header_row <= self.n_rows_above_header or self.header_row in self.skipped_row_numbers:
            # Compared with the rows that skip_rows leaves out, since the rows above header_row are fewer.
            raise ValueError(
                f"input.header_row is {self.header_row}, a row that input.skip_rows leaves out; row numbers are those of "
                "the whole file"
            )
        return self

    @property
    def skipped_row_numbers(self) -> frozenset[int]:
        """The rows that ``skip_rows`` lists."""
        return frozenset() if isinstance(self.skip_rows, int) else frozenset(self.skip_rows)

    @property
    def n_rows_above_header(self) -> int:
        """The number of rows at the top of the file that are not read."""
        if isinstance(self.skip_rows, int):
            n_skipped = self.skip_rows
        else:
            skipped = self.skipped_row_numbers
            n_skipped = next(number for number in count() if number + 1 not in skipped)
        return max(self.header_row - 1, n_skipped)


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

    @property
    def in_words(self) -> str:
        """The grouping as part of a message."""
        return f"with grouping.mode {self.mode}" if self.enabled else "without grouping"


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
        "{__ROW_KV_BLOCK__}",
        description="Template for a row; {__ROW_KV_BLOCK__} stands for its `column: value` lines, {Skill} or "
        '{"Customer name"} for the value of a column.',
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
