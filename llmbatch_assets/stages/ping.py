"""One minimal call to each model of a batch, to see that it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from llmbatch_assets.adapters.providers.registry import open_client
from llmbatch_assets.domain.parameters import Llm
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.usage import format_cost
from llmbatch_assets.errors import AnswerError, LlmBatchError
from llmbatch_assets.stages.generate.clients import CallMeter
from llmbatch_assets.stages.project import Batch
from llmbatch_assets.stages.runtime import new_run_id, utc_now

# As few as every provider takes.
PING_TOKENS = 16
PING = (Message("user", "Say OK."),)


class Pong(NamedTuple):
    """How a call went."""

    answered: bool
    told: str


def ping(batch: Batch) -> Iterator[Pong]:
    """Call the model and, where it is another one, the judge's, once each. The calls are in the ledger like all others."""
    parameters = batch.parameters
    yield _ping(batch, parameters.llm)
    if parameters.prompts.judge.enabled and not parameters.judge_shares_server():
        yield _ping(batch, parameters.judge_llm())


def _ping(batch: Batch, llm: Llm) -> Pong:
    where = f" at {llm.endpoint}" if llm.provider == "openai" else f" ({llm.provider})"
    meter = CallMeter(open_client, batch, new_run_id(), utc_now)
    try:
        asyncio.run(_call(meter, llm.model_copy(update={"max_output_tokens": PING_TOKENS})))
    except AnswerError:
        # It was made to stop before its end.
        pass
    except LlmBatchError as fault:
        return Pong(False, f"ping: {llm.model_name}{where} does not answer: {fault}")
    usage = meter.total
    tokens = f"{usage.input_tokens} input and {usage.output_tokens} output tokens"
    return Pong(
        True,
        f"ping: {llm.model_name}{where} answers ({tokens}, {format_cost(usage.known_cost_usd, usage.n_unknown_cost)})",
    )


async def _call(meter: CallMeter, llm: Llm) -> None:
    async with meter.client(llm, asyncio.Event()) as client:
        await client.complete(ChatRequest("generate", PING, None))
