"""Estimate of a run, from the lengths of its requests and the call log."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from llmbatch_assets.adapters.providers.prices import cost_function
from llmbatch_assets.adapters.store.run_records import read_ledger
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem, WorkPlan
from llmbatch_assets.domain.plan.estimate import (
    BYTES_PER_TOKEN,
    NO_CALLS,
    NOTHING,
    CallEstimate,
    Estimate,
    ItemUsage,
    PromptLength,
    Range,
    Requests,
    byte_length,
    cost,
    estimate_calls,
    shortest_time,
    usage_per_item,
)
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.request import Purpose
from llmbatch_assets.domain.run.ledger import CallRecord
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.domain.schema.offline_answer import offline_answer
from llmbatch_assets.stages.previous_outputs import PreviousOutputs
from llmbatch_assets.stages.project import Batch

# Tokens of the longest answer if llm.max_output_tokens is not set.
_LONGEST_ANSWER = 1_000


@dataclass(frozen=True)
class Estimator:
    """Estimates a run of ``items``. Those in ``judged_only`` (work ids) have an answer that lacks only its verdict."""

    batch: Batch
    plan: WorkPlan
    previous: PreviousOutputs
    items: Sequence[WorkItem]
    judged_only: Collection[str]

    def estimate(self) -> Estimate:
        generate, judge = self._generate_and_judge()
        costs = self._cost(generate, judge, with_cache=False)
        cached_costs = self._cost(generate, judge, with_cache=True)
        return Estimate(
            n_items=len(self.items),
            n_judged_only=len(self.judged_only),
            calls=generate.calls + judge.calls,
            input_tokens=generate.input_tokens + judge.input_tokens,
            output_tokens=generate.output_tokens + judge.output_tokens,
            cost_usd=costs,
            savings_usd=costs.likely - cached_costs.likely if costs and cached_costs else None,
            seconds=self._seconds(generate, judge),
            by_purpose={"generate": generate} | ({"judge": judge} if self.batch.judge_prompt else {}),
        )

    def _generate_and_judge(self) -> tuple[CallEstimate, CallEstimate]:
        parameters, shown = self.batch.parameters, self.batch.conversations
        if not self.items:
            return NO_CALLS, NO_CALLS
        new = [item for item in self.items if item.work_id not in self.judged_only]
        generate, n_measured = self._calls("generate", parameters.llm, shown.generation, shown.output_contract, new)
        if shown.judge is None or shown.judge_contract is None:
            return generate, NO_CALLS
        judge, n_judged = self._calls("judge", parameters.judge_llm(), shown.judge, shown.judge_contract, self.items)
        if n_judged:
            # Invalid answers are not judged.
            return generate, judge.scaled(min(1.0, n_judged / n_measured) if n_measured else 1.0)
        # The judge is shown the answers, whose lengths are not in those of its prompt.
        answer = _assumed_answer(shown.output_contract, parameters.llm.max_output_tokens)
        answers = generate.output_tokens if new else answer.times(len(self.items))
        return generate, judge._replace(input_tokens=judge.input_tokens + answers)

    def _calls(
        self, purpose: Purpose, llm: Llm, prompt: PromptTemplate, contract: Contract, items: Sequence[WorkItem]
    ) -> tuple[CallEstimate, int]:
        """Estimate the calls of one purpose. Also returns the number of items with measured usage."""
        length = self._prompt_length(prompt)
        measured, others = self._usage(purpose, llm, length)
        requests = Requests(
            lengths=[self._request_length(length, item) for item in items],
            answer=_assumed_answer(contract, llm.max_output_tokens),
            unseen=byte_length(contract.text),
            max_calls_per_item=self.batch.parameters.llm.max_retries,
        )
        return estimate_calls(requests, measured, others, llm.max_output_tokens), len(measured)

    def _cost(self, generate: CallEstimate, judge: CallEstimate, *, with_cache: bool) -> Range | None:
        parameters, total = self.batch.parameters, NOTHING
        for estimate, llm in ((generate, parameters.llm), (judge, parameters.judge_llm())):
            if not estimate.calls.high:
                continue
            part = cost(estimate, cost_function(llm, parameters.budget.prices), with_cache=with_cache)
            if part is None:
                return None
            total += part
        return total

    @cached_property
    def _group_lengths(self) -> dict[str | None, int]:
        return {context.group_context_id: byte_length(context.context) for context in self.plan.contexts}

    def _request_length(self, prompt: PromptLength, item: WorkItem) -> int:
        group = None if item.group_context_id is None else self._group_lengths[item.group_context_id]
        return prompt.of_request(item, group)

    def _prompt_length(self, prompt: PromptTemplate) -> PromptLength:
        shown = self.batch.conversations
        judge = shown.judge_contract.text if shown.judge_contract else None
        values = {"llm_schema": shown.output_contract.text, "llm_schema_txt": shown.schema_txt, "judge_schema": judge}
        return PromptLength.of(prompt, values)

    @cached_property
    def _records(self) -> list[CallRecord]:
        return list(read_ledger(self.batch.path(self.batch.layout.ledger)))

    def _usage(self, purpose: Purpose, llm: Llm, prompt: PromptLength) -> tuple[list[ItemUsage], list[ItemUsage]]:
        """Usage of the same prompt and model, and of other prompts with the model."""
        if not self._records:
            return [], []
        items = {item.work_id: item for item in self.plan.items}
        ids = {cache_id: items[work_id] for work_id, cache_id in self.previous.current.items()}
        for work_id, several in self.previous.by_item.items():
            ids |= {one.cache_id: items[work_id] for one in several if self._asks_the_same(purpose, one.identity)}
        logged = {record.cache_id for record in self._records}
        lengths = {cache_id: self._request_length(prompt, item) for cache_id, item in ids.items() if cache_id in logged}
        return usage_per_item(self._records, purpose, (llm.provider, llm.model_name), lengths)

    def _asks_the_same(self, purpose: Purpose, other: BatchIdentity) -> bool:
        """Return whether prompt, schema and model are the same."""
        own = self.batch.source.identity
        if (other.schema_sha, other.model_name) != (own.schema_sha, own.model_name):
            return False
        if purpose == "judge":
            return (other.judge_prompt_sha, other.judge) == (own.judge_prompt_sha, own.judge)
        return other.prompt_sha == own.prompt_sha

    def _seconds(self, generate: CallEstimate, judge: CallEstimate) -> Range:
        """The longest of the calls' own time spread over the workers, and the time that rate limits force on each server."""
        parameters = self.batch.parameters
        llm, judge_llm = parameters.llm, parameters.judge_llm()
        if llm.provider == "offline":
            return NOTHING
        calling = (generate.seconds + judge.seconds).times(1 / max(min(llm.max_workers, len(self.items)), 1))
        servers = [(llm, [generate, judge])]
        if not parameters.judge_shares_server():
            servers = [(llm, [generate]), (judge_llm, [judge])]
        limited = [shortest_time(calls, one.requests_per_minute, one.tokens_per_minute) for one, calls in servers]
        return Range(*map(max, calling, *limited))


def _assumed_answer(contract: Contract, longest: int | None) -> Range:
    """Tokens of an answer: from a short valid one to the limit; likely their geometric mean."""
    short = byte_length(canonical_json(offline_answer(contract.json_schema, "plan"))) / BYTES_PER_TOKEN[1]
    most = max(short, longest or _LONGEST_ANSWER)
    return Range(short, math.sqrt(short * most), most)
