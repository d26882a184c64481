"""Settings that are allowed and are probably not what was meant."""

from __future__ import annotations

from collections.abc import Iterator

from llmbatch_assets.domain.parameters import Parameters
from llmbatch_assets.domain.prompt import PromptTemplate


def parameter_warnings(parameters: Parameters) -> Iterator[str]:
    """What has no effect, or costs more than it may seem."""
    judge, cache = parameters.prompts.judge, parameters.cache
    if parameters.judge.model_fields_set and not judge.enabled:
        yield f"judge.{min(parameters.judge.model_fields_set)} has no effect: prompts.judge.enabled is false"
    if parameters.prompts.schema_auto_json_summarization.path:
        yield "prompts.schema_auto_json_summarization.path has no effect: the schema's text is made without a model"
    if parameters.artifacts.logs_dir and not parameters.run.log_file:
        yield "artifacts.logs_dir has no effect: run.log_file is empty, so no log file is written"
    if cache.force or not cache.enabled:
        yield f"{'cache.force is true' if cache.force else 'cache.enabled is false'}: every run makes and pays all its items again"
    if not cache.dump_failures:
        yield "cache.dump_failures is false: failed items leave no file, and every run tries all of them again"
    if parameters.llm.provider == "offline":
        yield "llm.provider is offline: all answers are made up"


def blank_warnings(prompt: PromptTemplate, parameters: Parameters) -> Iterator[str]:
    """Blanks of a prompt that are always empty as things are set."""
    used, grouping = prompt.placeholders, parameters.grouping
    if "group_context" in used and grouping.effective_mode != "row_output_with_group_context":
        yield f"{prompt.path}: {{group_context}} is always empty: grouping is {grouping.effective_mode}"
    if "judge_schema" in used and not parameters.prompts.judge.enabled:
        yield f"{prompt.path}: {{judge_schema}} is always empty: prompts.judge.enabled is false"


def schema_warnings(generation: PromptTemplate, parameters: Parameters) -> Iterator[str]:
    """A generation prompt that does not show the schema, where the provider is not sure to do so."""
    shows = {"llm_schema", "llm_schema_txt"} & generation.placeholders
    if not shows and parameters.llm.structured_output in ("auto", "json_schema"):
        yield f"{generation.path} does not use {{llm_schema}}: the model knows it only where the server hands it over"
