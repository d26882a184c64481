"""Money: what tokens cost, and sums of which a part may not be known."""

from __future__ import annotations

from llmbatch_assets.domain.text import counted

# A tenth of a billionth of a dollar. Rounded to it, sums are the same in whatever order calls end.
_PLACES = 10
_CENT = 0.01


def dollars(amount: float) -> float:
    """An amount as it is stored."""
    return round(amount, _PLACES)


def added(one: float | None, other: float | None) -> float | None:
    """The sum, which is not known where a part of it is not."""
    return None if one is None or other is None else dollars(one + other)


def cost_at(
    *,
    input_tokens: int,
    cached_input_tokens: int,
    output_tokens: int,
    input_price: float,
    cached_input_price: float | None,
    output_price: float,
) -> float:
    """What tokens cost at prices in dollars per million; cached ones that have no price of their own cost the same."""
    cached = min(cached_input_tokens, input_tokens)
    fresh = input_tokens - cached
    reused = cached * (input_price if cached_input_price is None else cached_input_price)
    return dollars((fresh * input_price + reused + output_tokens * output_price) / 1_000_000)


def shown(cost: float | None, unknown_calls: int = 0) -> str:
    """An amount for people, with the calls that it leaves out."""
    if cost is None:
        return "cost unknown"
    amount = f"${cost:.2f}" if cost >= _CENT or not cost else f"${cost:.6f}"
    return f"{amount} and {counted(unknown_calls, 'call')} of unknown cost" if unknown_calls else amount
