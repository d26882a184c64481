"""Providers by name: each opens a client for some settings and closes it at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llmbatch_assets.adapters.providers.credentials import NO_KEY, key_reader
from llmbatch_assets.adapters.providers.local_model import LocalServer
from llmbatch_assets.adapters.providers.offline_client import OfflineClient
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.parameters import Llm
from llmbatch_assets.domain.request import ChatRequest

if TYPE_CHECKING:
    from llmbatch_assets.adapters.providers.openai_client import OpenAIClient


class Client(Protocol):
    """What a provider opens."""

    async def complete(self, request: ChatRequest) -> Completion: ...

    @property
    def structured_output(self) -> str | None:
        """How JSON is asked for at present, where anything is asked."""
        ...


Opener = Callable[[Llm, Path], AbstractAsyncContextManager[Client]]


class LocalClient:
    """The embedded model. Finds or starts its server anew where the one it used is gone."""

    def __init__(self, llm: Llm, server: LocalServer) -> None:
        self._llm = llm
        self._server = server
        self._clients: dict[str, OpenAIClient] = {}

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one call. Raises a ``ProviderError``, or ``LocalModelError`` where there can be no server."""
        url = await asyncio.to_thread(self._server.url)
        if url not in self._clients:
            self._clients[url] = _speaking_openai(self._llm, url, lambda: NO_KEY)
        return await self._clients[url].complete(request)

    @property
    def structured_output(self) -> str | None:
        """How the server that was found last is asked for JSON."""
        return next((client.structured_output for client in reversed(self._clients.values())), None)

    async def close(self) -> None:
        """Close the connections and, where this process started it, the server."""
        for client in self._clients.values():
            await client.close()
        await asyncio.to_thread(self._server.close)


def _speaking_openai(llm: Llm, base_url: str, read_key: Callable[[], str]) -> OpenAIClient:
    # The SDK takes a second to import, which a run that calls nobody does not wait for.
    from llmbatch_assets.adapters.providers.openai_client import OpenAIClient

    return OpenAIClient(llm, base_url, read_key)


@asynccontextmanager
async def open_openai(llm: Llm, root: Path) -> AsyncIterator[Client]:
    """An OpenAI-compatible server. Raises ``RunPermanentError`` where its key is not set."""
    key_reader(llm.key_name, root)
    client = _speaking_openai(llm, llm.endpoint, lambda: key_reader(llm.key_name, root))
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def open_local(llm: Llm, root: Path) -> AsyncIterator[Client]:
    """The embedded model."""
    client = LocalClient(llm, LocalServer())
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def open_offline(llm: Llm, root: Path) -> AsyncIterator[Client]:
    """No model at all."""
    yield OfflineClient()


PROVIDERS: dict[str, Opener] = {"openai": open_openai, "local": open_local, "offline": open_offline}


def open_client(llm: Llm, root: Path) -> AbstractAsyncContextManager[Client]:
    """The client of the provider that the settings name; ``root`` is where credentials are kept."""
    return PROVIDERS[llm.provider](llm, root)
