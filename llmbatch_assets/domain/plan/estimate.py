"""What a run will take: calls, tokens, money and time, between a low and a high end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from llmbatch_assets.domain.outcome import TokenUsage
from llmbatch_assets.domain.plan.calibration import Line, Taken, fitted, reach, relative_error
from llmbatch_assets.domain.text import counted

# What is assumed where nothing was measured; docs/plan.md gives the reasons.
BYTES_PER_TOKEN = (5.0, 4.0, 3.0)
GENERATIONS_PER_ITEM = (1.0, 1.1, 1.5)
SECONDS_PER_CALL = (1.0, 4.0, 15.0)
# Of another prompt, answers may be half or twice as long.
KINDRED = (0.5, 1.0, 2.0)
# Where providers begin to keep the common beginning of prompts.
SHORTEST_CACHED_PREFIX = 1_024
_LATENCY = (0.8, 1.0, 1.25)

Basis = Literal["measured", "kindred", "assumed"]


class Range(NamedTuple):
    """An amount: at least, most likely, at most."""

    low: float
    likely: float
    high: float

    def __add__(self, other: Range) -> Range:  # type: ignore[override]  # a sum of amounts, not a longer tuple
        return Range(*(one + more for one, more in zip(self, other, strict=True)))

    def times(self, other: Sequence[float]) -> Range:
        """Each end multiplied by the other's."""
        return Range(*(one * by for one, by in zip(self, other, strict=True)))

    def rounded(self, places: int | None = None) -> Range:
        """The amount as it is told."""
        return Range(*(round(one, places) for one in self))


NOTHING = Range(0, 0, 0)


def exactly(amount: float) -> Range:
    """An amount that is certain."""
    return Range(amount, amount, amount)


def within(amount: float, error: float) -> Range:
    """An amount that may be off by a share."""
    return Range(amount * max(0.0, 1 - error), amount, amount * (1 + error))


class Questions(NamedTuple):
    """Requests of one kind that are to be made, by length; and what is known of the answers beforehand.

    ``answer`` is the assumed length of an answer in tokens, ``unseen`` what a server may add to a request, in bytes;
    ``again`` how many further requests are assumed per item; ``reused`` the input tokens that open like the one before.
    """

    lengths: Sequence[int]
    answer: Range
    unseen: int
    again: Range
    reused: float


class Stage(NamedTuple):
    """All calls of one kind: generations, or verdicts. ``error`` is the share by which tokens may be off."""

    calls: Range
    input_tokens: Range
    output_tokens: Range
    reused_tokens: float
    seconds: Range
    basis: Basis
    n_measured: int
    error: float | None

    def scaled(self, share: float) -> Stage:
        """The stage where only a share of its calls is made."""
        by = [share] * 3
        return self._replace(
            calls=self.calls.times(by),
            input_tokens=self.input_tokens.times(by),
            output_tokens=self.output_tokens.times(by),
            reused_tokens=self.reused_tokens * share,
            seconds=self.seconds.times(by),
        )


NO_CALLS = Stage(NOTHING, NOTHING, NOTHING, 0.0, NOTHING, "measured", 0, 0.0)


def stage(questions: Questions, measured: Sequence[Taken], kindred: Sequence[Taken], longest: int | None) -> Stage:
    """The calls for these requests, from what such calls took, else what others took, else by assumption.

    ``longest`` is the limit of an answer in tokens.
    """
    if not questions.lengths:
        return NO_CALLS
    if measured:
        return _measured(questions, measured, longest)
    return _assumed(questions, kindred, longest)


def _measured(questions: Questions, seen: Sequence[Taken], longest: int | None) -> Stage:
    n, lengths = len(questions.lengths), questions.lengths
    asked = fitted([(one.length, one.first_input) for one in seen], otherwise="ratio")
    said = fitted([(one.length, one.first_output) for one in seen], otherwise="mean")
    if longest and said.total(lengths) > longest * n:
        said = Line(float(longest), 0.0)
    inputs, input_error = _grown(asked, lengths, [(one.length, one.first_input, one.input_tokens) for one in seen])
    outputs, output_error = _grown(said, lengths, [(one.length, one.first_output, one.output_tokens) for one in seen])
    calls = n * sum(one.calls for one in seen) / len(seen)
    return Stage(
        # Each request is made once at least.
        calls=within(calls, input_error)._replace(low=max(within(calls, input_error).low, min(n, calls))),
        input_tokens=within(inputs, input_error),
        output_tokens=within(outputs, output_error),
        reused_tokens=inputs * sum(one.cached_tokens for one in seen) / sum(one.input_tokens for one in seen),
        seconds=Range(*_LATENCY).times(exactly(n * sum(one.seconds for one in seen) / len(seen))),
        basis="measured",
        n_measured=len(seen),
        error=max(input_error, output_error),
    )


def _grown(line: Line, lengths: Sequence[int], seen: Sequence[tuple[int, int, int]]) -> tuple[float, float]:
    """The tokens of all calls for requests of these lengths, corrections and second tries included; and their error.

    ``seen`` are length, tokens of the first call, and of all calls.
    """
    growth = sum(every for _, _, every in seen) / max(sum(first for _, first, _ in seen), 1)
    missed = [every - growth * line.total([size]) for size, _, every in seen]
    amount = growth * line.total(lengths)
    return amount, relative_error(missed, len(lengths), amount, reach([size for size, _, _ in seen], lengths))


def _assumed(questions: Questions, kindred: Sequence[Taken], longest: int | None) -> Stage:
    n = len(questions.lengths)
    said, again, seconds = questions.answer, questions.again, Range(*SECONDS_PER_CALL)
    if kindred:
        m = len(kindred)
        answered = sum(one.answered for one in kindred)
        said = Range(*KINDRED).times(exactly(sum(one.first_output for one in kindred) / m))
        again = Range(*(max(1.0, end) for end in within(answered / m, 0.25)))
        seconds = Range(*KINDRED).times(exactly(sum(one.seconds for one in kindred) / max(answered, 1)))
    if longest:
        said = Range(*(min(one, longest) for one in said))
    lengths = exactly(sum(questions.lengths)) + Range(0, 0, questions.unseen * n)
    calls = again.times(exactly(n))
    return Stage(
        calls=calls,
        input_tokens=lengths.times([1 / by for by in BYTES_PER_TOKEN]).times(again),
        output_tokens=said.times(calls),
        reused_tokens=questions.reused,
        seconds=seconds.times(calls),
        basis="kindred" if kindred else "assumed",
        n_measured=len(kindred),
        error=None,
    )


CostOf = Callable[[TokenUsage], float | None]


def cost(stages: Stage, cost_of: CostOf) -> Range | None:
    """The price of a stage without any reuse of beginnings; None where nobody knows it.

    A call is priced, not their sum: prices can depend on how long a call is.
    """
    ends = []
    for calls, asked, said in zip(stages.calls, stages.input_tokens, stages.output_tokens, strict=True):
        each = max(calls, 1)
        price = cost_of(TokenUsage(requests=1, input_tokens=round(asked / each), output_tokens=round(said / each)))
        if price is None:
            return None
        ends.append(price * calls)
    return Range(*ends)


def savings(stages: Stage, cost_of: CostOf) -> float | None:
    """What is saved where the provider charges less for the beginnings that its cache holds."""
    calls = max(stages.calls.likely, 1)
    asked, reused = round(stages.input_tokens.likely / calls), round(stages.reused_tokens / calls)
    whole = cost_of(TokenUsage(requests=1, input_tokens=asked))
    less = cost_of(TokenUsage(requests=1, input_tokens=asked, cached_input_tokens=reused))
    return None if whole is None or less is None else (whole - less) * calls


@dataclass(frozen=True)
class Limits:
    """How fast one server may be asked; 0 is no limit."""

    requests_per_minute: int
    tokens_per_minute: int


def shortest_time(stages: Sequence[Stage], limits: Limits) -> Range:
    """Seconds that the limits of one server make its calls take, however quick its answers are."""
    calls = sum((one.calls for one in stages), start=NOTHING)
    tokens = sum((one.input_tokens + one.output_tokens for one in stages), start=NOTHING)
    by_calls = [60 * one / limits.requests_per_minute if limits.requests_per_minute else 0.0 for one in calls]
    by_tokens = [60 * one / limits.tokens_per_minute if limits.tokens_per_minute else 0.0 for one in tokens]
    return Range(*map(max, by_calls, by_tokens))


class Estimate(NamedTuple):
    """What working on some items will take. Costs are None where a price is not known."""

    n_items: int
    n_judged_only: int
    calls: Range
    input_tokens: Range
    output_tokens: Range
    cost_usd: Range | None
    savings_usd: float | None
    seconds: Range
    method: str
    stages: dict[str, Stage]

    def as_json(self) -> dict[str, Any]:
        """The estimate as ``--json`` tells it."""
        told = {name: _told(getattr(self, name).rounded()) for name in ("calls", "input_tokens", "output_tokens")}
        return {
            "items": self.n_items,
            "judged_only": self.n_judged_only,
            **told,
            "cost_usd": None if self.cost_usd is None else _told(self.cost_usd.rounded(6)),
            "cached_prefix_savings_usd": None if self.savings_usd is None else round(self.savings_usd, 6),
            "seconds": _told(self.seconds.rounded(1)),
            "method": self.method,
            "basis": {name: one.basis for name, one in self.stages.items()},
            "error": {
                name: one.error if one.error is None else round(one.error, 3) for name, one in self.stages.items()
            },
            "calibrated_on": {name: one.n_measured for name, one in self.stages.items()},
        }


def _told(amount: Range) -> dict[str, float]:
    return amount._asdict()


def methods_of(stages: Mapping[str, Stage]) -> str:
    """How the stages with calls were estimated and how far they may be off, as people read it."""
    names: dict[str, list[str]] = {}
    for name, one in stages.items():
        if one.calls.high:
            names.setdefault(_method_of(one), []).append(name)
    return ". ".join(f"{' and '.join(several)}: {method}" for method, several in names.items())


def _method_of(one: Stage) -> str:
    if one.basis == "measured" and one.error is not None:
        return (
            f"tokens by the length of the request, fitted to {counted(one.n_measured, 'item')} of the same model and prompt; within "
            f"{one.error:.0%} in 95 of 100 cases"
        )
    asked = "input at 3 to 5 bytes per token, likely 4"
    if one.basis == "kindred":
        return (
            f"{asked}; answers, second tries and time as for {counted(one.n_measured, 'item')} of the same model that were asked "
            "otherwise, half to twice as much"
        )
    return (
        f"{asked}; answers by the schema, second tries and time by assumption; run a --sample of 20 to have it measured"
    )
