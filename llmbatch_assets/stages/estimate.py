"""The estimate of a run: its requests measured, and the ledger asked what such requests took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from llmbatch_assets.adapters.providers.prices import CostOf, cost_function
from llmbatch_assets.adapters.store.ledger import read_ledger
from llmbatch_assets.domain.canonical import canonical_json
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem, WorkPlan
from llmbatch_assets.domain.ledger import CallRecord
from llmbatch_assets.domain.parameters import Llm
from llmbatch_assets.domain.plan.calibration import Taken, taken
from llmbatch_assets.domain.plan.estimate import (
    BYTES_PER_TOKEN,
    GENERATIONS_PER_ITEM,
    NO_CALLS,
    NOTHING,
    SHORTEST_CACHED_PREFIX,
    Estimate,
    Limits,
    Questions,
    Range,
    Stage,
    cost,
    methods_of,
    savings,
    shortest_time,
    stage,
)
from llmbatch_assets.domain.plan.prompt_length import Ruler, length
from llmbatch_assets.domain.plan.selection import by_group
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.request import Purpose
from llmbatch_assets.domain.schema.contract import Contract
from llmbatch_assets.domain.schema.offline_answer import offline_answer
from llmbatch_assets.stages.earlier_outputs import EarlierOutputs
from llmbatch_assets.stages.project import Batch

# An answer that nothing is known of is no longer than this, in tokens.
LONGEST_ANSWER = 1_000


class Work(NamedTuple):
    """What a run would do: items to generate, and items whose answer only lacks a verdict."""

    generated: Sequence[WorkItem]
    judged_only: Sequence[WorkItem]


@dataclass(frozen=True)
class Estimator:
    """Estimates one run."""

    batch: Batch
    plan: WorkPlan
    earlier: EarlierOutputs
    work: Work

    def estimate(self) -> Estimate:
        """Calls, tokens, money and time."""
        generate, judge = self._generate, self._judge
        price, judge_price = self._price(self.batch.parameters.llm), self._price(self.batch.parameters.judge_llm())
        stages = {"generate": generate} | ({"judge": judge} if self.batch.judge_prompt else {})
        priced = [(one, price) for one, price in ((generate, price), (judge, judge_price)) if one.calls.high]
        costs, saved = [cost(*one) for one in priced], [savings(*one) for one in priced]
        return Estimate(
            n_items=len(self.work.generated) + len(self.work.judged_only),
            n_judged_only=len(self.work.judged_only),
            calls=generate.calls + judge.calls,
            input_tokens=generate.input_tokens + judge.input_tokens,
            output_tokens=generate.output_tokens + judge.output_tokens,
            cost_usd=_sum(costs),
            savings_usd=None if None in saved else sum(one or 0.0 for one in saved),
            seconds=self._seconds(generate, judge),
            method=methods_of(stages),
            stages=stages,
        )

    def _price(self, llm: Llm) -> CostOf:
        return cost_function(llm, self.batch.parameters.budget.prices)

    @cached_property
    def _groups(self) -> dict[str, int]:
        return {context.group_context_id: length(context.context) for context in self.plan.contexts}

    def _measure(self, ruler: Ruler, item: WorkItem) -> int:
        group = None if item.group_context_id is None else self._groups[item.group_context_id]
        return ruler.measure(length(item.context), group)

    def _ruler(self, prompt: PromptTemplate) -> Ruler:
        shown = self.batch.conversations
        judge = shown.judge_contract.text if shown.judge_contract else None
        values = {"llm_schema": shown.output_contract.text, "llm_schema_txt": shown.schema_txt, "judge_schema": judge}
        return Ruler.of(prompt, values)

    @cached_property
    def _records(self) -> list[CallRecord]:
        if not (self.work.generated or self.work.judged_only):
            return []
        return list(read_ledger(self.batch.path(self.batch.layout.ledger)))

    def _taken(self, purpose: Purpose, llm: Llm, ruler: Ruler) -> tuple[list[Taken], list[Taken]]:
        """What such requests took before, and what others of the model did."""
        items = {item.work_id: item for item in self.plan.items}
        ids = {cache_id: items[work_id] for work_id, cache_id in self.earlier.current.items()}
        for work_id, several in self.earlier.by_item.items() if self._records else ():
            ids |= {one.cache_id: items[work_id] for one in several if self._is_kin(purpose, one.identity)}
        asked = {record.cache_id for record in self._records}
        lengths = {cache_id: self._measure(ruler, item) for cache_id, item in ids.items() if cache_id in asked}
        return taken(self._records, purpose, (llm.provider, llm.model_name), lengths)

    def _is_kin(self, purpose: Purpose, other: BatchIdentity) -> bool:
        """Whether the same prompt with the same schema was shown to the same model."""
        own = self.batch.source.identity
        if (other.schema_sha, other.model_name) != (own.schema_sha, own.model_name):
            return False
        if purpose == "judge":
            return (other.judge_prompt_sha, other.judge) == (own.judge_prompt_sha, own.judge)
        return other.prompt_sha == own.prompt_sha

    @cached_property
    def _taken_to_generate(self) -> tuple[list[Taken], list[Taken]]:
        return self._taken("generate", self.batch.parameters.llm, self._generation_ruler)

    @cached_property
    def _generation_ruler(self) -> Ruler:
        return self._ruler(self.batch.conversations.generation)

    @cached_property
    def _generate(self) -> Stage:
        llm, contract = self.batch.parameters.llm, self.batch.conversations.output_contract
        if not self.work.generated:
            return NO_CALLS
        questions = self._questions(self._generation_ruler, contract, llm, self.work.generated)
        return stage(questions, *self._taken_to_generate, llm.max_output_tokens)

    @cached_property
    def _judge(self) -> Stage:
        shown, llm = self.batch.conversations, self.batch.parameters.judge_llm()
        items = [*self.work.generated, *self.work.judged_only]
        if shown.judge is None or shown.judge_contract is None or not items:
            return NO_CALLS
        ruler = self._ruler(shown.judge)
        measured, others = self._taken("judge", llm, ruler)
        questions = self._questions(ruler, shown.judge_contract, llm, items)
        answer = _assumed_answer(shown.output_contract, self.batch.parameters.llm.max_output_tokens)
        shown_answers = self._generate.output_tokens if self.work.generated else answer.times([len(items)] * 3)
        told = stage(questions, measured, others, llm.max_output_tokens)
        if not measured:
            return told._replace(input_tokens=told.input_tokens + shown_answers)
        # Answers that are no valid output are not judged.
        generated = len(self._taken_to_generate[0])
        return told.scaled(min(1.0, len(measured) / generated) if generated else 1.0)

    def _questions(self, ruler: Ruler, contract: Contract, llm: Llm, items: Sequence[WorkItem]) -> Questions:
        most = self.batch.parameters.llm.max_retries
        return Questions(
            lengths=[self._measure(ruler, item) for item in items],
            answer=_assumed_answer(contract, llm.max_output_tokens),
            unseen=length(contract.text),
            again=Range(*(min(one, most) for one in GENERATIONS_PER_ITEM)),
            reused=self._reused(ruler, items),
        )

    def _reused(self, ruler: Ruler, items: Sequence[WorkItem]) -> float:
        """Input tokens of which a provider may still hold the same from the call before."""
        tokens, before = 0.0, items[0].group_context_id
        for item in by_group(items)[1:]:
            is_shared = ruler.opens_with_group and item.group_context_id == before is not None
            group = self._groups[item.group_context_id] if is_shared and item.group_context_id else 0
            same = (ruler.opening + group) / BYTES_PER_TOKEN[1]
            tokens += same if same >= SHORTEST_CACHED_PREFIX else 0.0
            before = item.group_context_id
        return tokens

    def _seconds(self, generate: Stage, judge: Stage) -> Range:
        """The longest of what answers take with the workers there are, and what each server's limits take."""
        parameters = self.batch.parameters
        llm, judge_llm = parameters.llm, parameters.judge_llm()
        n_items = len(self.work.generated) + len(self.work.judged_only)
        waiting = (generate.seconds + judge.seconds).times([1 / max(min(llm.max_workers, n_items), 1)] * 3)
        if llm.provider == "offline":
            return NOTHING
        if parameters.judge_shares_server():
            gates = [shortest_time([generate, judge], _limits(llm))]
        else:
            gates = [shortest_time([generate], _limits(llm)), shortest_time([judge], _limits(judge_llm))]
        return Range(*map(max, waiting, *gates))


def _limits(llm: Llm) -> Limits:
    return Limits(llm.requests_per_minute, llm.tokens_per_minute)


def _sum(costs: Sequence[Range | None]) -> Range | None:
    known = [one for one in costs if one is not None]
    return sum(known, start=NOTHING) if len(known) == len(costs) else None


def _assumed_answer(contract: Contract, longest: int | None) -> Range:
    """Tokens of an answer: at least as a short one that keeps the schema, at most the limit; likely their geometric mean."""
    short = length(canonical_json(offline_answer(contract.json_schema, "plan"))) / BYTES_PER_TOKEN[1]
    most = max(short, longest or LONGEST_ANSWER)
    return Range(short, math.sqrt(short * most), most)
