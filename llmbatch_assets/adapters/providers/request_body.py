"""The body of a chat-completion request, and the differences between servers."""

from __future__ import annotations

import json
from typing import Any

import orjson

from llmbatch_assets.domain.configuration.model_blocks import OPENAI_BASE_URL, Llm
from llmbatch_assets.domain.configuration.server_address import azure_api_version, is_azure
from llmbatch_assets.domain.prompt import Message
from llmbatch_assets.domain.request import ChatRequest

# Azure's versions before this one do not know max_completion_tokens.
_FIRST_NEW_NAMES = "2024-09"


def is_openai(base_url: str) -> bool:
    """Return whether the URL is OpenAI's own."""
    return base_url.rstrip("/") == OPENAI_BASE_URL


def request_body(llm: Llm, base_url: str, request: ChatRequest, used_format: str) -> bytes:
    """Return the encoded body of a request that asks for JSON in the given way."""
    messages = request.messages if used_format == "json_schema" else request.with_schema_in_prompt()
    # OpenAI's newer models accept only the first name, most other servers only the second.
    max_tokens = "max_completion_tokens" if _uses_new_names(base_url) else "max_tokens"
    settings = {
        "temperature": llm.temperature,
        "top_p": llm.top_p,
        "seed": llm.seed,
        max_tokens: llm.max_output_tokens,
        "response_format": response_format(base_url, request, used_format),
    }
    present = {name: value for name, value in settings.items() if value is not None}
    turns = [_turn(message) for message in messages]
    return _encoded({"model": llm.model_name, "messages": turns, **present} | llm.extra_body)


def _uses_new_names(base_url: str) -> bool:
    if is_openai(base_url):
        return True
    # Without a version it is Azure's newer address, .../openai/v1.
    return is_azure(base_url) and (azure_api_version(base_url) or _FIRST_NEW_NAMES) >= _FIRST_NEW_NAMES


def _turn(message: Message) -> dict[str, str]:
    # A model's answer can contain a lone surrogate, which cannot be encoded when the answer is sent back.
    return {"role": message.role, "content": message.content.encode(errors="backslashreplace").decode()}


def response_format(base_url: str, request: ChatRequest, used_format: str) -> dict[str, Any] | None:
    """Return the ``response_format`` of a request; None if only the prompt asks for JSON, or nothing does."""
    contract = request.contract
    if used_format == "prompt" or contract is None:
        return None
    if used_format == "json_object":
        return {"type": "json_object"}
    strict_schema = contract.strict_form if is_openai(base_url) or is_azure(base_url) else None
    schema = strict_schema or contract.json_schema
    is_strict = strict_schema is not None or contract.requires_all
    return {"type": "json_schema", "json_schema": {"name": contract.name, "schema": schema, "strict": is_strict}}


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        # extra_body contains an integer of more than 64 bits.
        return json.dumps(body).encode()
