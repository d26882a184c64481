"""Estimate of a run, from the lengths of its requests and the call log."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from llmbatch_assets.adapters.providers.prices import cost_function
from llmbatch_assets.adapters.store.ledger import read_ledger
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem, WorkPlan
from llmbatch_assets.domain.ledger import CallRecord
from llmbatch_assets.domain.parameters import Llm
from llmbatch_assets.domain.plan.estimate import (
    BYTES_PER_TOKEN,
    NO_CALLS,
    NOTHING,
    CallEstimate,
    Estimate,
    ItemUsage,
    PromptLength,
    Range,
    RateLimits,
    Requests,
    byte_length,
    cost,
    estimate_calls,
    savings,
    shortest_time,
    usage_per_item,
)
from llmbatch_assets.domain.plan.selection import by_group
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.request import Purpose
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.domain.schema.offline_answer import made_up
from llmbatch_assets.stages.previous_outputs import PreviousOutputs
from llmbatch_assets.stages.project import Batch

# Tokens of the longest answer if llm.max_output_tokens is not set.
_LONGEST_ANSWER = 1_000
# Providers cache only longer prefixes, in tokens.
_SHORTEST_CACHED_PREFIX = 1_024


@dataclass(frozen=True)
class Estimator:
    """Estimates a run of ``items``. Those in ``judged_only`` (work ids) have an answer that lacks only its verdict."""

    batch: Batch
    plan: WorkPlan
    previous: PreviousOutputs
    items: Sequence[WorkItem]
    judged_only: Collection[str]

    def estimate(self) -> Estimate:
        parameters, generate, judge = self.batch.parameters, self._generate, self._judge
        priced = [
            (calls, cost_function(llm, parameters.budget.prices))
            for calls, llm in ((generate, parameters.llm), (judge, parameters.judge_llm()))
            if calls.calls.high
        ]
        costs, saved = [cost(*one) for one in priced], [savings(*one) for one in priced]
        known_costs = [one for one in costs if one is not None]
        return Estimate(
            n_items=len(self.items),
            n_judged_only=len(self.judged_only),
            calls=generate.calls + judge.calls,
            input_tokens=generate.input_tokens + judge.input_tokens,
            output_tokens=generate.output_tokens + judge.output_tokens,
            cost_usd=sum(known_costs, start=NOTHING) if len(known_costs) == len(costs) else None,
            savings_usd=None if None in saved else sum(one or 0.0 for one in saved),
            seconds=self._seconds(),
            by_purpose={"generate": generate} | ({"judge": judge} if self.batch.judge_prompt else {}),
        )

    @cached_property
    def _generated(self) -> list[WorkItem]:
        return [item for item in self.items if item.work_id not in self.judged_only]

    @cached_property
    def _group_lengths(self) -> dict[str | None, int]:
        return {context.group_context_id: byte_length(context.context) for context in self.plan.contexts}

    def _request_length(self, prompt: PromptLength, item: WorkItem) -> int:
        group = None if item.group_context_id is None else self._group_lengths[item.group_context_id]
        return prompt.of_request(byte_length(item.context), group)

    def _prompt_length(self, prompt: PromptTemplate) -> PromptLength:
        shown = self.batch.conversations
        judge = shown.judge_contract.text if shown.judge_contract else None
        values = {"llm_schema": shown.output_contract.text, "llm_schema_txt": shown.schema_txt, "judge_schema": judge}
        return PromptLength.of(prompt, values)

    @cached_property
    def _records(self) -> list[CallRecord]:
        return list(read_ledger(self.batch.path(self.batch.layout.ledger))) if self.items else []

    def _usage(self, purpose: Purpose, llm: Llm, prompt: PromptLength) -> tuple[list[ItemUsage], list[ItemUsage]]:
        """Usage of the same prompt and model, and of other prompts with the model."""
        items = {item.work_id: item for item in self.plan.items}
        ids = {cache_id: items[work_id] for work_id, cache_id in self.previous.current.items()}
        for work_id, several in self.previous.by_item.items() if self._records else ():
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

    @cached_property
    def _generation_length(self) -> PromptLength:
        return self._prompt_length(self.batch.conversations.generation)

    @cached_property
    def _generation_usage(self) -> tuple[list[ItemUsage], list[ItemUsage]]:
        return self._usage("generate", self.batch.parameters.llm, self._generation_length)

    @cached_property
    def _generate(self) -> CallEstimate:
        if not self._generated:
            return NO_CALLS
        llm, contract = self.batch.parameters.llm, self.batch.conversations.output_contract
        requests = self._requests(self._generation_length, contract, llm, self._generated)
        return estimate_calls(requests, *self._generation_usage, llm.max_output_tokens)

    @cached_property
    def _judge(self) -> CallEstimate:
        shown, llm = self.batch.conversations, self.batch.parameters.judge_llm()
        if shown.judge is None or shown.judge_contract is None or not self.items:
            return NO_CALLS
        prompt = self._prompt_length(shown.judge)
        measured, others = self._usage("judge", llm, prompt)
        requests = self._requests(prompt, shown.judge_contract, llm, self.items)
        estimate = estimate_calls(requests, measured, others, llm.max_output_tokens)
        if not measured:
            # The judge is shown the answers, whose lengths are not in those of its prompt.
            answer = _assumed_answer(shown.output_contract, self.batch.parameters.llm.max_output_tokens)
            answers = self._generate.output_tokens if self._generated else answer.times([len(self.items)] * 3)
            return estimate._replace(input_tokens=estimate.input_tokens + answers)
        # Invalid answers are not judged.
        generated = len(self._generation_usage[0])
        return estimate.scaled(min(1.0, len(measured) / generated) if generated else 1.0)

    def _requests(self, prompt: PromptLength, contract: Contract, llm: Llm, items: Sequence[WorkItem]) -> Requests:
        return Requests(
            lengths=[self._request_length(prompt, item) for item in items],
            answer=_assumed_answer(contract, llm.max_output_tokens),
            unseen=byte_length(contract.text),
            max_calls_per_item=self.batch.parameters.llm.max_retries,
            reused_tokens=self._reused_tokens(prompt, items),
        )

    def _reused_tokens(self, prompt: PromptLength, items: Sequence[WorkItem]) -> float:
        """Input tokens that a provider may have cached from the request before."""
        groups = [item.group_context_id if prompt.opens_with_group else None for item in by_group(items)]
        lengths = [
            prompt.opening + (self._group_lengths.get(now, 0) if now == before else 0)
            for before, now in pairwise(groups)
        ]
        tokens = [length / BYTES_PER_TOKEN[1] for length in lengths]
        return sum(one for one in tokens if one >= _SHORTEST_CACHED_PREFIX)

    def _seconds(self) -> Range:
        """The longest of the calls' own time spread over the workers, and the time that rate limits force on each server."""
        parameters, generate, judge = self.batch.parameters, self._generate, self._judge
        llm, judge_llm = parameters.llm, parameters.judge_llm()
        if llm.provider == "offline":
            return NOTHING
        calling = (generate.seconds + judge.seconds).times([1 / max(min(llm.max_workers, len(self.items)), 1)] * 3)
        if parameters.judge_shares_server():
            limited = [shortest_time([generate, judge], _limits(llm))]
        else:
            limited = [shortest_time([generate], _limits(llm)), shortest_time([judge], _limits(judge_llm))]
        return Range(*map(max, calling, *limited))


def _limits(llm: Llm) -> RateLimits:
    return RateLimits(llm.requests_per_minute, llm.tokens_per_minute)


def _assumed_answer(contract: Contract, longest: int | None) -> Range:
    """Tokens of an answer: from a short valid one to the limit; likely their geometric mean."""
    short = byte_length(canonical_json(made_up(contract.json_schema, "plan"))) / BYTES_PER_TOKEN[1]
    most = max(short, longest or _LONGEST_ANSWER)
    return Range(short, math.sqrt(short * most), most)
