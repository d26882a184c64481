"""Configuration of one batch: its blocks, rules between them, and reading a parsed file.

Every key has a default and a description; unknown keys are refused.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import model_validator

from llmbatch_assets.domain.configuration import input_blocks, model_blocks, output_blocks
from llmbatch_assets.domain.configuration.block import Block, block_field

DEFAULT_BATCH = "parameters"


class Parameters(Block):
    """The configuration of one batch."""

    run: input_blocks.Run = block_field(input_blocks.Run)
    input: input_blocks.Input = block_field(input_blocks.Input)
    grouping: input_blocks.Grouping = block_field(input_blocks.Grouping)
    context: input_blocks.Context = block_field(input_blocks.Context)
    work_items: input_blocks.WorkItemsBlock = block_field(input_blocks.WorkItemsBlock)
    prompts: output_blocks.Prompts = block_field(output_blocks.Prompts)
    llm_schema: output_blocks.LlmSchema = block_field(output_blocks.LlmSchema)
    llm: model_blocks.Llm = block_field(model_blocks.Llm)
    judge: model_blocks.Judge = block_field(model_blocks.Judge)
    cache: output_blocks.Cache = block_field(output_blocks.Cache)
    artifacts: output_blocks.Artifacts = block_field(output_blocks.Artifacts)
    outputs: output_blocks.Outputs = block_field(output_blocks.Outputs)
    report: output_blocks.Report = block_field(output_blocks.Report)
    checks: model_blocks.Checks = block_field(model_blocks.Checks)
    budget: model_blocks.Budget = block_field(model_blocks.Budget)

    @model_validator(mode="after")
    def _settings_fit_provider(self) -> Parameters:
        if self.llm.provider != "openai" and (self.llm.base_url or self.judge.base_url):
            raise ValueError(f"base_url has no effect with llm.provider {self.llm.provider}; use provider: openai")
        named = {
            "llm.model_name": self.llm.model_name,
            "judge.model_name": self.judge.model_name or model_blocks.LOCAL_MODEL,
        }
        unknown = [key for key, name in named.items() if name != model_blocks.LOCAL_MODEL]
        if self.llm.provider == "local" and unknown:
            raise ValueError(
                f"llm.provider local has one model, so {unknown[0]} must be {model_blocks.LOCAL_MODEL} (found {named[unknown[0]]!r}); "
                "for another model use provider: openai, with the server's address in llm.base_url"
            )
        return self

    @model_validator(mode="after")
    def _judge_rate_has_effect(self) -> Parameters:
        rates = self.judge.model_dump(include={"requests_per_minute", "tokens_per_minute"}, exclude_none=True)
        if rates and self.judge_shares_server():
            raise ValueError(
                f"judge.{next(iter(rates))} only applies to a judge with another model_name or base_url; the calls of this "
                "judge count towards the limits of llm"
            )
        return self

    def judge_shares_server(self) -> bool:
        """Return whether generation and judge call the same model on the same server."""
        judge = self.judge_llm()
        return (judge.endpoint, judge.model_name) == (self.llm.endpoint, self.llm.model_name)

    def judge_llm(self) -> model_blocks.Llm:
        """Return the settings of the judge's calls: those of ``llm`` with what ``judge`` overrides."""
        overrides = self.judge.model_dump(exclude={"min_score"}, exclude_none=True)
        judge = self.llm.model_copy(update=overrides)
        if judge.endpoint != self.llm.endpoint:
            # Never send one server's key to another.
            return judge.model_copy(update={"api_key_env": "", "api_key_header": ""} | overrides)
        return judge

    def key_names(self) -> set[str]:
        """Return the names of the API keys that the batch needs."""
        if self.llm.provider != "openai":
            return set()
        judge = {self.judge_llm().key_name} if self.prompts.judge.enabled else set()
        return ({self.llm.key_name} | judge) - {""}


def read_parameters(mapping: dict[str, Any]) -> Parameters:
    """Validate a parsed file with strict types. Raises ``pydantic.ValidationError``."""
    # In YAML, a block with all its keys commented out is None.
    blocks = {name: block for name, block in mapping.items() if block is not None}
    return Parameters.model_validate_json(json.dumps(blocks, default=str, allow_nan=False), strict=True)
