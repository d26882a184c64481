"""How calls are made: one way for generations, verdicts and schemas."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.engine.patience import patiently
from llmbatch_assets.engine.ports import ChatClient
from llmbatch_assets.errors import AskOtherwiseError, RunPermanentError


@dataclass(frozen=True)
class Calls:
    """Makes the calls of one run. None begins once the run is ``stopped``."""

    transport_retries: int
    stopped: asyncio.Event

    async def ask(self, client: ChatClient, request: ChatRequest) -> Completion:
        """The answer to a call, tried again while that can help. Raises a ``ProviderError``."""

        async def call() -> Completion:
            while not self.stopped.is_set():
                with contextlib.suppress(AskOtherwiseError):
                    return await client.complete(request)
            raise RunPermanentError("stopped", "the run was stopped")

        return await patiently(call, self.transport_retries, self.stopped)
