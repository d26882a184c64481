"""Prices of model calls."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from llmbatch_assets.domain.configuration.model_blocks import Llm, ModelPrice
from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.usage import CostOf, TokenUsage, cost_at, round_cost
from llmbatch_assets.errors import ConfigError


def cost_function(llm: Llm, prices: Mapping[str, ModelPrice]) -> CostOf:
    """Return a function that prices the calls to a model: by the configured price, else by the installed price list.

    Providers on this machine cost nothing. The cost of a model without a known price is None.
    """
    if llm.provider != "openai":
        return lambda _: 0.0
    if llm.model_name in prices:
        price = prices[llm.model_name]
        return lambda usage: cost_at(usage, price)
    return _listed(llm)


def _listed(llm: Llm) -> CostOf:
    today, is_unknown = datetime.now(UTC), False

    def cost_of(usage: TokenUsage) -> float | None:
        nonlocal is_unknown
        if is_unknown:
            return None
        # The import takes a third of a second. Only runs that price a call must wait for it.
        import genai_prices

        tokens = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cached_input_tokens,
            output_tokens=usage.output_tokens,
        )
        try:
            price = genai_prices.calc_price(
                tokens, llm.model_name, provider_api_url=llm.endpoint, genai_request_timestamp=today
            )
        except LookupError:
            # The model is the same in all calls.
            is_unknown = True
            return None
        except ValueError:
            return None
        return round_cost(float(price.total_price))

    return cost_of


def require_prices(parameters: Parameters) -> None:
    """Raise ``ConfigError`` if there is a budget and the price of a model that will be called is unknown."""
    if not parameters.budget.max_cost_usd:
        return
    judge = [parameters.judge_llm()] if parameters.prompts.judge.enabled else []
    for llm in (parameters.llm, *judge):
        if cost_function(llm, parameters.budget.prices)(TokenUsage(requests=1, input_tokens=1)) is None:
            raise ConfigError(
                f"budget.max_cost_usd is set, but the price of {llm.model_name} at {llm.endpoint} is unknown; set it in US "
                f"dollars per million tokens, budget.prices: {{{llm.model_name}: {{input: ..., output: ...}}}}, or remove "
                "budget.max_cost_usd"
            )
