"""Prices: the configured ones first, then the installed list; never a guess."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.adapters.providers.prices import cost_function, require_prices
from llmbatch_assets.domain.configuration.model_blocks import Llm, ModelPrice
from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.errors import ConfigError

MILLION = TokenUsage(requests=1, input_tokens=1_000_000, cached_input_tokens=400_000, output_tokens=1_000_000)
OWN = "http://127.0.0.1:8000/v1"


def cost(usage: TokenUsage = MILLION, prices: dict[str, ModelPrice] | None = None, **llm: Any) -> float | None:
    return cost_function(Llm(**llm), prices or {})(usage)


def test_the_installed_list_knows_the_well_known() -> None:
    # 0.15 for input, 0.075 for cached input, 0.60 for output.
    assert cost(model_name="gpt-4o-mini") == pytest.approx(0.09 + 0.03 + 0.6)
    assert (cost(model_name="gemini-2.5-flash") or 0) > 0


def test_reasoning_is_priced_as_the_output_that_it_is_part_of() -> None:
    thought = TokenUsage(requests=1, output_tokens=1_000_000, reasoning_tokens=900_000)
    plain = TokenUsage(requests=1, output_tokens=1_000_000)
    assert cost(thought, model_name="gpt-4o-mini") == cost(plain, model_name="gpt-4o-mini") == 0.6


@pytest.mark.parametrize(
    "llm", [{"model_name": "my-own"}, {"model_name": "gpt-4o-mini", "base_url": OWN}], ids=["model", "server"]
)
def test_what_nobody_knows_is_unknown(llm: dict[str, Any]) -> None:
    assert cost(**llm) is None


def test_a_configured_price_goes_before_the_list() -> None:
    price = ModelPrice(input=1, cached_input=0.5, output=2)
    assert cost(prices={"gpt-4o-mini": price}, model_name="gpt-4o-mini") == 0.6 + 0.2 + 2
    assert cost(prices={"another": price}, model_name="gpt-4o-mini") != 2.8


@pytest.mark.parametrize("provider", ["local", "offline"])
def test_what_is_made_on_this_machine_costs_nothing(provider: str) -> None:
    price = ModelPrice(input=1, output=1)
    assert cost(prices={"gpt-4o-mini": price}, provider=provider, model_name="gpt-4o-mini") == 0.0


# A budget needs prices.


def parameters(**blocks: Any) -> Parameters:
    return Parameters.model_validate({"budget": {"max_cost_usd": 1}, **blocks})


@pytest.mark.parametrize(
    "blocks",
    [
        {"llm": {"model_name": "my-own"}},
        {"judge": {"model_name": "my-own"}, "prompts": {"judge": {"enabled": True}}},
    ],
    ids=["llm", "judge"],
)
def test_a_budget_without_a_price_is_refused_with_the_key_to_set(blocks: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"my-own at https://.*budget\.prices: \{my-own: \{input"):
        require_prices(parameters(**blocks))


@pytest.mark.parametrize(
    "blocks",
    [
        {},
        {"llm": {"model_name": "my-own"}, "budget": {"max_items": 3}},
        {"llm": {"model_name": "my-own", "provider": "offline"}},
        {"judge": {"model_name": "my-own"}},
        {
            "llm": {"model_name": "my-own"},
            "budget": {"max_cost_usd": 1, "prices": {"my-own": {"input": 1, "output": 1}}},
        },
    ],
    ids=["known", "no money", "offline", "no judge", "configured"],
)
def test_other_budgets_are_fine(blocks: dict[str, Any]) -> None:
    refusal = None
    try:
        require_prices(parameters(**blocks))
    except ConfigError as error:
        refusal = str(error)
    assert refusal is None
