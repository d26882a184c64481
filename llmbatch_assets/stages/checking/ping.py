"""One minimal call to each model of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from llmbatch_assets.adapters.providers.registry import open_client
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.usage import format_cost
from llmbatch_assets.errors import AnswerError, LlmBatchError
from llmbatch_assets.stages.generate.clients import CallMeter
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.runtime import new_run_id, utc_now

# The smallest number that every provider accepts.
PING_TOKENS = 16
PING = (Message("user", "Say OK."),)


class PingResult(NamedTuple):
    answered: bool
    message: str


def ping(batch: Batch) -> Iterator[PingResult]:
    """Make one minimal call to each model: generation, and the judge if it differs. The ledger records them."""
    parameters = batch.parameters
    yield _ping_model(batch, parameters.llm)
    if parameters.prompts.judge.enabled and not parameters.judge_shares_server():
        yield _ping_model(batch, parameters.judge_llm())


def _ping_model(batch: Batch, llm: Llm) -> PingResult:
    where = f" at {llm.endpoint}" if llm.provider == "openai" else f" ({llm.provider})"
    meter = CallMeter(open_client, batch, new_run_id(), utc_now)
    try:
        asyncio.run(_call(meter, llm.model_copy(update={"max_output_tokens": PING_TOKENS})))
    except AnswerError:
        # The token limit can cut the answer off.
        pass
    except LlmBatchError as error:
        return PingResult(False, f"ping: {llm.model_name}{where} does not answer: {error}")
    usage = meter.total
    tokens = f"{usage.input_tokens} input and {usage.output_tokens} output tokens"
    cost = format_cost(usage.known_cost_usd, usage.n_unknown_cost)
    return PingResult(True, f"ping: {llm.model_name}{where} answers ({tokens}, {cost})")


async def _call(meter: CallMeter, llm: Llm) -> None:
    async with meter.client(llm, asyncio.Event()) as client:
        await client.complete(ChatRequest("generate", PING, None))
