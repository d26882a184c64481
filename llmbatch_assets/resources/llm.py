"""The LLM as a Dagster resource: opens the clients that a batch's parameters ask for."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import dagster as dg

from llmbatch_assets.adapters.providers import PROVIDERS
from llmbatch_assets.domain.parameters import Parameters
from llmbatch_assets.engine.ports import ChatClient


class LlmResource(dg.ConfigurableResource[None]):
    """Opens providers by name. Keys are read when a call is made and are no part of any configuration."""

    @asynccontextmanager
    async def clients(self, parameters: Parameters, root: Path) -> AsyncIterator[tuple[ChatClient, ChatClient | None]]:
        """The client that generates and, where the judge is enabled, the one that judges."""
        async with AsyncExitStack() as stack:
            llm, judge_llm = parameters.llm, parameters.judge_llm()
            generator = await stack.enter_async_context(PROVIDERS[llm.provider](llm, root))
            if not parameters.prompts.judge.enabled:
                yield generator, None
                return
            yield generator, await stack.enter_async_context(PROVIDERS[judge_llm.provider](judge_llm, root))
