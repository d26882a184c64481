"""The providers by name. Each opens a client for given settings and closes it at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llmbatch_assets.adapters.providers.credentials import NO_KEY, read_key
from llmbatch_assets.domain.canonical import canonical_json, sha1_named
from llmbatch_assets.domain.configuration.model_blocks import Llm
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.schema.offline_answer import offline_answer
from llmbatch_assets.domain.usage import TokenUsage

if TYPE_CHECKING:
    from llmbatch_assets.adapters.providers.local_model import LocalServer
    from llmbatch_assets.adapters.providers.openai_client import OpenAIClient

_CHARS_PER_TOKEN = 4


class Client(Protocol):
    """An open client of a provider."""

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one call. Raises a ``ProviderError``."""
        ...

    @property
    def structured_output(self) -> str | None:
        """The way of asking for JSON that is used now; None for a provider that is not asked."""
        ...


Opener = Callable[[Llm, Path], AbstractAsyncContextManager[Client]]


class LocalClient:
    """The embedded model. If its server is gone, the client finds or starts another one."""

    def __init__(self, llm: Llm, server: LocalServer) -> None:
        self._llm = llm
        self._server = server
        self._clients: dict[str, OpenAIClient] = {}

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one call. Raises a ``ProviderError``, or ``LocalModelError`` if no server can be started."""
        url = await asyncio.to_thread(self._server.url)
        if url not in self._clients:
            self._clients[url] = _openai_client(self._llm, url, lambda: NO_KEY)
        return await self._clients[url].complete(request)

    @property
    def structured_output(self) -> str | None:
        return next((client.structured_output for client in reversed(self._clients.values())), None)

    async def aclose(self) -> None:
        """Close the connections and, if this process started it, the server."""
        for client in self._clients.values():
            await client.aclose()
        await asyncio.to_thread(self._server.close)


class OfflineClient:
    """No model: builds answers from the JSON schema. Equal requests get equal answers."""

    structured_output = None

    async def complete(self, request: ChatRequest) -> Completion:
        """Return an answer that satisfies the request's contract."""
        # Preflight prevents schema generation offline: a made-up schema would be taken for the batch's own.
        assert request.contract is not None
        text = canonical_json(offline_answer(request.contract.json_schema, sha1_named(messages=request.messages)))
        usage = TokenUsage(
            requests=1, input_tokens=request.chars // _CHARS_PER_TOKEN, output_tokens=len(text) // _CHARS_PER_TOKEN
        )
        return Completion(text=text, usage=usage)


def _openai_client(llm: Llm, base_url: str, get_key: Callable[[], str]) -> OpenAIClient:
    # aiohttp takes long to import. Runs without a call must not wait for it.
    from llmbatch_assets.adapters.providers.openai_client import OpenAIClient

    return OpenAIClient(llm, base_url, get_key)


@asynccontextmanager
async def open_openai(llm: Llm, root: Path) -> AsyncIterator[Client]:
    """Open a client of an OpenAI-compatible server. Raises ``RunPermanentError`` if its key is not set."""
    key_name = llm.key_name
    read_key(key_name, root)
    async with aclosing(_openai_client(llm, llm.endpoint, lambda: read_key(key_name, root))) as client:
        yield client


@asynccontextmanager
async def open_local(llm: Llm, root: Path) -> AsyncIterator[Client]:
    # The archives and locks that it needs are only imported for a local model.
    from llmbatch_assets.adapters.providers.local_model import LocalServer

    async with aclosing(LocalClient(llm, LocalServer())) as client:
        yield client


@asynccontextmanager
async def open_offline(llm: Llm, root: Path) -> AsyncIterator[Client]:
    yield OfflineClient()


PROVIDERS: dict[str, Opener] = {"openai": open_openai, "local": open_local, "offline": open_offline}


def open_client(llm: Llm, root: Path) -> AbstractAsyncContextManager[Client]:
    """Open a client of the configured provider; ``root`` is the folder of ``credentials.yaml``."""
    return PROVIDERS[llm.provider](llm, root)
