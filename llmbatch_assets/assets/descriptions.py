"""Descriptions of the assets in Dagster: the purpose of each, what it reads and writes, and the page about it."""

from __future__ import annotations

_TEXTS = {
    "input_table": "The input table file. Its data version is a fingerprint of the file.",
    "prompts": "The prompt files. Only their messages affect outputs; name, version and purpose do not.",
    "parameters": "The configuration file of the batch. Its data version is a fingerprint of all settings.",
    "model_settings": "The settings of model and judge that affect outputs. They are read from the configuration file.",
    "llm_schema_py": "The Pydantic module that defines a valid output. It is parsed and checked but never imported. Reads the "
    "schema module; if it is missing, the model generates it from parameters and prompts.",
    "llm_schema_txt": "The output schema as JSON Schema, for the prompts. Reads llm_schema_py and writes the text beside it.",
    "input_snapshot": "The cleaned input table. Reads the table and writes it as JSON: all values are strings, and the same "
    "table always gives the same file.",
    "group_contexts": "The context text of each group, stored once per group; empty if items share no context. Reads "
    "input_snapshot and writes JSON.",
    "work_items": "The work items, one per output. Reads input_snapshot, writes JSON and registers one llm_outputs partition "
    "for each item.",
    "llm_outputs": "The accepted model outputs, one partition per work item. Reads work_items, group_contexts, the prompts and "
    "the schema, and writes a JSON file per item; items that already have an accepted output are not sent to the model again. "
    "To run everything pending, use the job generate_pending.",
    "export": "The accepted outputs joined with their input rows. Reads llm_outputs and input_snapshot, and writes a file per "
    "format and one that lists what was not exported, with reasons.",
    "report": "The report on the batch: outcomes, failures by cause, cost, sample outputs and file locations. Reads "
    "llm_outputs, input_snapshot and export, and writes Markdown and HTML.",
}
_PAGES = {
    **dict.fromkeys(("input_table", "input_snapshot"), "tables.md"),
    **dict.fromkeys(("parameters", "model_settings"), "configuration.md"),
    **dict.fromkeys(("llm_schema_py", "llm_schema_txt"), "schema.md"),
    "llm_outputs": "dagster.md",
    "export": "exports.md",
    "report": "report.md",
}


def description(asset: str) -> str:
    """Return the description of an asset, with the page of the documentation about it."""
    return f"{_TEXTS[asset]}\n\nDocumentation: `docs/{_PAGES.get(asset, 'assets.md')}`"
