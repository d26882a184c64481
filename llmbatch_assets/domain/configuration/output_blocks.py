"""Blocks of a configuration file about prompts, schema, cache, artifacts, exports and the report.

Descriptions are published as docs/configuration.md.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, model_validator

from llmbatch_assets.domain.configuration.block import Block, ColumnName, block_field


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
    csv_bom: bool = Field(
        False,
        description="Begin csv and tsv files with a byte order mark, by which Excel recognizes UTF-8; without it, Excel may show ä as Ã¤.",
    )
    group_rows: Literal["one", "expand"] = Field(
        "one", description="For group_output; one: one record per group; expand: one record per row that the model saw."
    )
    explode: Explode = block_field(Explode)

    @model_validator(mode="after")
    def _is_consistent(self) -> Outputs:
        named = [getattr(self, name) for name in type(self).model_fields if name.endswith("_path")]
        repeated = next((path for path in named if path and named.count(path) > 1), "")
        if repeated:
            raise ValueError(f"two files have the same path, {repeated}; give each its own path")
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
