"""Estimates of calls, tokens, cost and time. Request lengths are known; the call log says how many tokens such requests took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.placeholders import JUDGE_NAMES, columns_named
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.request import OWN_ROW_HEADING, Purpose
from llmbatch_assets.domain.run.ledger import CallRecord
from llmbatch_assets.domain.text import counted
from llmbatch_assets.domain.usage import CostOf, TokenUsage

# Assumptions (low, likely, high) for what was not measured; docs/plan.md explains them.
BYTES_PER_TOKEN = (5.0, 4.0, 3.0)
CALLS_PER_ITEM = (1.0, 1.1, 1.5)
SECONDS_PER_CALL = (1.0, 4.0, 15.0)
# Answers to another prompt may be half as long or twice as long.
OTHER_PROMPT = (0.5, 1.0, 2.0)
_LATENCY = (0.8, 1.0, 1.25)
# Two standard errors cover about 95 % of cases. A spread cannot be estimated from fewer items than this.
_STANDARD_ERRORS = 2.0
_FEWEST_FOR_A_SPREAD = 5
_SMALLEST_ERROR, _ERROR_OF_FEW, _LARGEST_ERROR = 0.05, 0.5, 1.0

# Use another rate only if it reduces the squared error below this share; a smaller gain may be chance.
_CLEARLY_BETTER = 0.7

# "kindred": measured with the same model, but another prompt.
Basis = Literal["measured", "kindred", "assumed"]


class Range(NamedTuple):
    """An estimated amount."""

    low: float
    likely: float
    high: float

    def __add__(self, other: Range) -> Range:  # type: ignore[override]  # a sum of amounts, not a longer tuple
        return Range(*(one + more for one, more in zip(self, other, strict=True)))

    def times(self, *factors: float) -> Range:
        """Multiply by one factor, or by separate factors for low, likely and high."""
        return Range(*(one * by for one, by in zip(self, factors * (3 // len(factors)), strict=True)))

    def rounded(self, places: int | None = None) -> dict[str, float]:
        return {name: round(value, places) for name, value in self._asdict().items()}


NOTHING = Range(0, 0, 0)


def within(amount: float, error: float) -> Range:
    """A range around an amount. ``error`` is relative to it."""
    return Range(amount * max(0.0, 1 - error), amount, amount * (1 + error))


def byte_length(text: str) -> int:
    """UTF-8 bytes. Token counts follow them more closely than characters in scripts other than Latin."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class PromptLength(NamedTuple):
    """The bytes that all requests of a prompt have in common, and how often it uses the values that differ by item."""

    shared: int
    uses: Mapping[str, int]

    @classmethod
    def of(cls, prompt: PromptTemplate, shared_values: Mapping[str, str | None]) -> PromptLength:
        by_item = {*prompt.column_placeholders(JUDGE_NAMES), "context", "row", "group_context", "output_json"}
        marks = {name: f"\0{name}\0" for name in by_item}
        texts = "".join(message.content for message in prompt.render({**shared_values, **marks})).split("\0")
        return cls(sum(map(byte_length, texts[::2])), Counter(texts[1::2]))

    def of_request(self, item: WorkItem, group: int | None) -> int:
        """The length of a request about an item, given the length of its group's context."""
        row = byte_length(item.context)
        context = row if group is None else row + group + len(f"\n\n{OWN_ROW_HEADING}\n")
        own = {"context": context, "row": row, "group_context": group or 0}
        if columns := self.uses.keys() - own.keys() - JUDGE_NAMES:
            found = {name: columns_named(name, item.columns) for name in columns}
            own |= {name: byte_length(item.columns[several[0]]) for name, several in found.items() if several}
        return self.shared + sum(self.uses.get(name, 0) * length for name, length in own.items())


@dataclass
class ItemUsage:
    """All calls for one item in one run. ``length`` is the length of its request in bytes."""

    length: int
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0

    def add(self, record: CallRecord) -> None:
        self.calls += 1
        self.input_tokens += record.input_tokens
        self.output_tokens += record.output_tokens
        self.cached_tokens += record.cached_input_tokens
        self.seconds += record.latency_sec


def usage_per_item(
    records: Iterable[CallRecord], purpose: Purpose, model: tuple[str, str], lengths: Mapping[str, int]
) -> tuple[list[ItemUsage], list[ItemUsage]]:
    """Usage of the requests whose lengths are known by cache id, and of all others of the same model.

    ``model`` is provider and model name. Items without a token count are left out.
    """
    known: dict[tuple[str, str], ItemUsage] = {}
    others: dict[tuple[str, str], ItemUsage] = {}
    for record in records:
        if record.purpose != purpose or (record.provider, record.model) != model or record.cache_id is None:
            continue
        usages = known if record.cache_id in lengths else others
        key = (record.run_id, record.cache_id)
        usages.setdefault(key, ItemUsage(lengths.get(record.cache_id, 0))).add(record)
    return [one for one in known.values() if one.input_tokens], [one for one in others.values() if one.input_tokens]


class Requests(NamedTuple):
    """Requests of one purpose. ``answer``: assumed tokens per answer; ``unseen``: bytes that a server may add to each."""

    lengths: Sequence[int]
    answer: Range
    unseen: int
    max_calls_per_item: int


class CallEstimate(NamedTuple):
    """All calls of one purpose. ``error`` is the relative error of the token counts; None if unknown."""

    calls: Range
    input_tokens: Range
    output_tokens: Range
    seconds: Range
    basis: Basis
    n_measured: int
    error: float | None
    cached_share: float = 0.0

    def scaled(self, share: float) -> CallEstimate:
        """The estimate for a share of the calls."""
        return self._replace(**{name: getattr(self, name).times(share) for name in self._fields[:4]})


NO_CALLS = CallEstimate(NOTHING, NOTHING, NOTHING, NOTHING, "measured", 0, 0.0)


def estimate_calls(
    requests: Requests, measured: Sequence[ItemUsage], others: Sequence[ItemUsage], max_output_tokens: int | None
) -> CallEstimate:
    """Estimate from usage with the same prompt, else with another prompt of the same model, else from assumptions."""
    if not requests.lengths:
        return NO_CALLS
    most = max_output_tokens or math.inf
    return _measured(requests.lengths, measured, most) if measured else _assumed(requests, others, most)


def _measured(lengths: Sequence[int], seen: Sequence[ItemUsage], max_output: float) -> CallEstimate:
    n = len(lengths)
    inputs = [(one.length, one.input_tokens) for one in seen]
    input_total, input_error = extrapolate(lengths, inputs, (_per_byte(inputs), 1 / BYTES_PER_TOKEN[1], 0.0))
    outputs = [(one.length, one.output_tokens) for one in seen]
    output_total, output_error = extrapolate(lengths, outputs, (0.0, _per_byte(outputs)))
    calls = within(*extrapolate(lengths, [(one.length, one.calls) for one in seen], (0.0,)))
    return CallEstimate(
        # Each item takes at least one call.
        calls=calls._replace(low=max(calls.low, n)),
        input_tokens=within(input_total, input_error),
        output_tokens=within(min(output_total, max_output * calls.likely), output_error),
        seconds=Range(*_LATENCY).times(n * sum(one.seconds for one in seen) / len(seen)),
        basis="measured",
        n_measured=len(seen),
        error=max(input_error, output_error),
        cached_share=sum(one.cached_tokens for one in seen) / sum(one.input_tokens for one in seen),
    )


def _per_byte(seen: Sequence[tuple[int, int]]) -> float:
    return sum(amount for _, amount in seen) / max(sum(length for length, _ in seen), 1)


def extrapolate(
    lengths: Sequence[int], seen: Sequence[tuple[int, int]], per_byte: Sequence[float]
) -> tuple[float, float]:
    """The total amount for requests of these lengths, and its relative error.

    ``seen`` are lengths and amounts. Each request is predicted to take the mean amount plus a rate ``per_byte`` by which
    it is longer than the mean: the first of these rates, unless another fits clearly better. The error is two standard
    errors of a sum of n that is predicted from a sample of m: ``2 s sqrt(n + n^2 / m)``.
    """
    n, m = len(lengths), len(seen)
    mean_length, mean = (sum(values) / m for values in zip(*seen, strict=True))
    squares = {
        rate: sum((amount - mean - rate * (length - mean_length)) ** 2 for length, amount in seen) for rate in per_byte
    }
    best = min(squares, key=lambda one: squares[one])
    rate = best if squares[best] < _CLEARLY_BETTER * squares[per_byte[0]] else per_byte[0]
    total = n * mean + rate * (sum(lengths) - n * mean_length)
    if m < _FEWEST_FOR_A_SPREAD or total <= 0:
        return max(total, 0.0), _ERROR_OF_FEW
    error = _STANDARD_ERRORS * math.sqrt(squares[rate] / (m - 1) * (n + n**2 / m)) / total
    return total, min(max(error, _SMALLEST_ERROR), _LARGEST_ERROR)


def _assumed(requests: Requests, others: Sequence[ItemUsage], max_output: float) -> CallEstimate:
    n, answer = len(requests.lengths), requests.answer
    per_item, seconds = Range(*CALLS_PER_ITEM), Range(*SECONDS_PER_CALL)
    if others:
        calls = sum(one.calls for one in others)
        answer = Range(*OTHER_PROMPT).times(sum(one.output_tokens for one in others) / calls)
        per_item = within(calls / len(others), 0.25)
        seconds = Range(*OTHER_PROMPT).times(sum(one.seconds for one in others) / calls)
    per_item = Range(*(min(max(1.0, end), requests.max_calls_per_item) for end in per_item))
    length = within(sum(requests.lengths), 0) + Range(0, 0, requests.unseen * n)
    return CallEstimate(
        calls=per_item.times(n),
        input_tokens=length.times(*(1 / by for by in BYTES_PER_TOKEN)).times(*per_item),
        output_tokens=Range(*(min(one, max_output) for one in answer)).times(*per_item).times(n),
        seconds=seconds.times(*per_item).times(n),
        basis="kindred" if others else "assumed",
        n_measured=len(others),
        error=None,
    )


def cost(estimate: CallEstimate, cost_of: CostOf, *, with_cache: bool = False) -> Range | None:
    """The cost with or without the provider's prompt cache; None if a price is unknown."""
    ends = []
    for calls, asked, said in zip(estimate.calls, estimate.input_tokens, estimate.output_tokens, strict=True):
        # Priced per call, since prices can depend on its length.
        usage = TokenUsage(
            requests=1, input_tokens=round(asked / max(calls, 1)), output_tokens=round(said / max(calls, 1))
        )
        cached = round(usage.input_tokens * estimate.cached_share) if with_cache else 0
        price = cost_of(usage.model_copy(update={"cached_input_tokens": cached}))
        if price is None:
            return None
        ends.append(price * calls)
    return Range(*ends)


def shortest_time(estimates: Sequence[CallEstimate], requests_per_minute: int, tokens_per_minute: int) -> Range:
    """The minimum number of seconds that the calls take under one server's rate limits; a limit of 0 is no limit."""
    calls = sum((one.calls for one in estimates), start=NOTHING)
    tokens = sum((one.input_tokens + one.output_tokens for one in estimates), start=NOTHING)
    limits = ((calls, requests_per_minute), (tokens, tokens_per_minute))
    return Range(*map(max, *(amount.times(60 / limit if limit else 0.0) for amount, limit in limits)))


class Estimate(NamedTuple):
    """The estimated calls, tokens, cost and time of a run. Costs are None if a price is unknown."""

    n_items: int
    n_judged_only: int
    calls: Range
    input_tokens: Range
    output_tokens: Range
    cost_usd: Range | None
    savings_usd: float | None
    seconds: Range
    by_purpose: dict[str, CallEstimate]

    def as_json(self) -> dict[str, Any]:
        purposes = self.by_purpose.items()
        return {
            "items": self.n_items,
            "judged_only": self.n_judged_only,
            "calls": self.calls.rounded(),
            "input_tokens": self.input_tokens.rounded(),
            "output_tokens": self.output_tokens.rounded(),
            "cost_usd": None if self.cost_usd is None else self.cost_usd.rounded(6),
            "cached_prefix_savings_usd": None if self.savings_usd is None else round(self.savings_usd, 6),
            "seconds": self.seconds.rounded(1),
            "method": self.method,
            "basis": {name: one.basis for name, one in purposes},
            "error": {name: one.error if one.error is None else round(one.error, 3) for name, one in purposes},
            "calibrated_on": {name: one.n_measured for name, one in purposes},
        }

    @property
    def method(self) -> str:
        """A description of how the calls of each purpose were estimated, and how accurately."""
        purposes: dict[str, list[str]] = {}
        for name, one in self.by_purpose.items():
            if one.calls.high:
                purposes.setdefault(_method_of(one), []).append(name)
        return ". ".join(f"{' and '.join(names)}: {method}" for method, names in purposes.items())


def _method_of(one: CallEstimate) -> str:
    items = counted(one.n_measured, "item")
    if one.basis == "measured" and one.error is not None:
        return f"measured on {items} with the same model and prompt, +/- {one.error * 100:.0f} % (95 % confidence)"
    if one.basis == "kindred":
        return (
            f"input tokens from request lengths (3 to 5 bytes per token); output length, retries and time from {items} of the "
            "same model with another prompt, times 0.5 to 2"
        )
    return (
        "input tokens from request lengths (3 to 5 bytes per token); output length guessed from the schema, retries and time "
        "assumed. For a measured estimate: llmbatch run --sample 20"
    )
