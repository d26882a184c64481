"""The LLM as a Dagster resource: opens the clients that a batch's parameters ask for."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import dagster as dg

from llmbatch_assets.adapters.providers.registry import PROVIDERS, Client
from llmbatch_assets.domain.parameters import Llm, Parameters


class LlmResource(dg.ConfigurableResource[None]):
    """Opens providers by name. Keys are read when a call is made and are no part of any configuration."""

    @asynccontextmanager
    async def clients(self, parameters: Parameters, root: Path) -> AsyncIterator[tuple[Client, Client | None]]:
        """The client that generates and, where the judge is enabled, the one that judges."""
        async with AsyncExitStack() as stack:
            generator = await stack.enter_async_context(self.client(parameters.llm, root))
            if not parameters.prompts.judge.enabled:
                yield generator, None
                return
            yield generator, await stack.enter_async_context(self.client(parameters.judge_llm(), root))

    def client(self, llm: Llm, root: Path) -> AbstractAsyncContextManager[Client]:
        """One client with some settings."""
        return PROVIDERS[llm.provider](llm, root)
