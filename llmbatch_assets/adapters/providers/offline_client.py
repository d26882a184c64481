"""The provider without a model: answers made from the schema."""

from __future__ import annotations

from llmbatch_assets.domain.canonical import canonical_json, sha1_named
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.domain.schema.offline_answer import made_up
from llmbatch_assets.domain.usage import TokenUsage

CHARS_PER_TOKEN = 4


class OfflineClient:
    """Answers every call at once, the same call always the same."""

    structured_output = None

    async def complete(self, request: ChatRequest) -> Completion:
        """A made-up answer that keeps the request's contract."""
        # A schema is asked for only where preflight let it: a made-up one would be taken for the batch's own.
        assert request.contract is not None
        text = canonical_json(made_up(request.contract.json_schema, sha1_named(messages=request.messages)))
        asked = sum(len(message.content) for message in request.messages)
        usage = TokenUsage(
            requests=1, input_tokens=asked // CHARS_PER_TOKEN, output_tokens=len(text) // CHARS_PER_TOKEN
        )
        return Completion(text=text, usage=usage)
