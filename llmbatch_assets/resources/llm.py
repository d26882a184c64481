"""The LLM as a Dagster resource."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import dagster as dg

from llmbatch_assets.adapters.providers.registry import Client, open_client
from llmbatch_assets.domain.configuration.model_blocks import Llm


class LlmResource(dg.ConfigurableResource[None]):
    """Opens providers by name. API keys are read when a call is made and are not part of any configuration."""

    def client(self, llm: Llm, root: Path) -> AbstractAsyncContextManager[Client]:
        """Open a client with these settings; ``root`` is the project's folder."""
        return open_client(llm, root)


def llm_resource(context: dg.OpExecutionContext | dg.AssetExecutionContext, key: str) -> LlmResource:
    """Return the resource with this key. Each batch has a key of its own, so no parameter can be named after it."""
    resource: LlmResource = getattr(context.resources, key)
    return resource
