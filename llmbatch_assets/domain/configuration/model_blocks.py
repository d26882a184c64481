"""Blocks of a configuration file about models, budget and quality checks.

Descriptions are published as docs/configuration.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from llmbatch_assets.domain.configuration.block import Block
from llmbatch_assets.domain.configuration.server_address import canonical_address, checked_address, is_azure

GEMINI_BASE_URL = "https://generativelanguage.googleapis.com/v1beta/openai/"
OPENAI_BASE_URL = "https://api.openai.com/v1"
# The one model of provider local.
LOCAL_MODEL = "SmolLM2-135M-Instruct"

# Field names that suggest a secret. The extra fields of a request are part of every artifact's identity.
_SECRET = re.compile(
    r"api[-_]?key|authori[sz]ation|secret|password|credential|(?:access|auth|bearer)[-_]?token", re.IGNORECASE
)

# Headers that every request has for other purposes.
_TAKEN_HEADERS = {
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "user-agent",
}


def _check_variable_name(name: str) -> str:
    # Upper case only: API keys contain lower-case letters, and a key mistaken for a name would end up in a log.
    if name and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,79}", name):
        raise ValueError("must be the NAME of an environment variable in capitals, e.g. OPENAI_API_KEY, not the key")
    return name


def _check_header_name(name: str) -> str:
    if name and (not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", name) or name.lower() in _TAKEN_HEADERS):
        raise ValueError("must be the name of a header for keys, e.g. api-key or x-api-key, not the key")
    return name


def _check_no_secrets(body: dict[str, Any]) -> dict[str, Any]:
    for name in _field_names(body):
        if _SECRET.search(name):
            raise ValueError(f"must not contain keys: put {name} into an environment variable (api_key_env)")
    return body


def _field_names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from map(str, value)
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        yield from _field_names(part)


ServerUrl = Annotated[str, AfterValidator(checked_address)]
VariableName = Annotated[str, AfterValidator(_check_variable_name)]
HeaderName = Annotated[str, AfterValidator(_check_header_name)]


def default_endpoint(model_name: str) -> str:
    """Return the base URL of the server that is called if none is set."""
    return GEMINI_BASE_URL if model_name.startswith("gemini-") else OPENAI_BASE_URL


class Llm(Block):
    """Provider, model, sampling, retries and limits."""

    provider: Literal["openai", "local", "offline"] = Field(
        "openai",
        description="openai: any OpenAI-compatible server; local: the embedded model; offline: made-up answers without calls.",
    )
    model_name: str = Field("gpt-4o-mini", min_length=1, description="Model to call.")
    base_url: ServerUrl = Field(
        "",
        description="Server address, e.g. http://127.0.0.1:8000/v1, or for Azure OpenAI "
        "https://RESOURCE.openai.azure.com/openai/deployments/DEPLOYMENT?api-version=2024-10-21; empty: OpenAI, or Gemini for gemini-* models.",
    )
    api_key_env: VariableName = Field(
        "",
        description="Name of the environment variable with the API key; empty: OPENAI_API_KEY or GEMINI_API_KEY for their own servers, and no key for other ones.",
    )
    api_key_header: HeaderName = Field(
        "",
        description="Header that holds the API key, e.g. x-api-key; empty: Authorization: Bearer KEY, or api-key for Azure OpenAI.",
    )
    temperature: float | None = Field(1.0, ge=0, le=2, description="Sampling temperature; null: not sent.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling; null: not sent.")
    seed: int | None = Field(None, description="Sampling seed; null: not sent.")
    max_output_tokens: int | None = Field(None, ge=1, description="Maximum tokens in an answer; null: not sent.")
    structured_output: Literal["auto", "json_schema", "json_object", "prompt"] = Field(
        "auto", description="How JSON is requested; auto: the strictest mode that the server supports."
    )
    max_retries: int = Field(3, ge=1, description="Maximum generations per item and run, including the first.")
    runner_max_retries: int = Field(3, ge=1, description="Maximum calls to get one readable verdict from the judge.")
    transport_retries: int = Field(
        4, ge=0, description="Retries of a call after a network error, a timeout, a rate limit or a server error."
    )
    timeout_sec: float = Field(
        120,
        gt=0,
        description="Timeout for one call, in seconds. A call that times out is repeated at most twice, with two and four times this limit.",
    )
    give_up_after: float = Field(
        600,
        gt=0,
        description="The run stops if the server is busy (HTTP 429 or 503) for this many seconds without answering any call.",
    )
    stop_on_same_refusal: bool = Field(
        True,
        description="The run stops if many items in a row are refused with the same message, and records none of them as failed; false: each refusal is recorded as a permanent failure of its item.",
    )
    max_failures: int = Field(0, ge=0, description="The run stops after this many failed items; 0: no limit.")
    max_failure_rate: float = Field(
        0.0,
        ge=0,
        le=1,
        description="The run stops if a larger share of its items fails, checked after the first 20; 0: no limit.",
    )
    max_workers: int = Field(8, ge=1, le=4096, description="Maximum calls in flight.")
    requests_per_minute: int = Field(
        0, ge=0, description="Maximum calls started per minute, evenly spaced; 0: no limit."
    )
    tokens_per_minute: int = Field(0, ge=0, description="Maximum input and output tokens per minute; 0: no limit.")
    extra_body: Annotated[dict[str, Any], AfterValidator(_check_no_secrets)] = Field(
        {}, description="Extra fields for the request body."
    )
    silence_client_lv_logs: bool = Field(
        True, description="Hide the log line of each HTTP call, which run.log_level: DEBUG shows."
    )

    @property
    def endpoint(self) -> str:
        """Base URL of the server to call."""
        return self.base_url or default_endpoint(self.model_name)

    @property
    def key_header(self) -> str:
        """Name of the header that holds the API key."""
        return self.api_key_header or ("api-key" if is_azure(self.endpoint) else "Authorization")

    @property
    def key_name(self) -> str:
        """Name of the API key's environment variable; empty if the server needs no key."""
        usual = {GEMINI_BASE_URL: "GEMINI_API_KEY", OPENAI_BASE_URL: "OPENAI_API_KEY"}
        own = {canonical_address(url): name for url, name in usual.items()}
        return self.api_key_env or own.get(canonical_address(self.endpoint), "")


class Judge(Block):
    """Settings for the judge's calls that differ from those in llm."""

    min_score: int = Field(0, ge=0, le=100, description="Minimum score; a lower one rejects the output.")
    model_name: str | None = Field(None, description="Model of the judge; null: llm.model_name.")
    base_url: ServerUrl | None = Field(None, description="Server address of the judge; null: llm.base_url.")
    api_key_env: VariableName | None = Field(
        None, description="Name of the environment variable with the judge's key; null: llm.api_key_env."
    )
    api_key_header: HeaderName | None = Field(
        None, description="Header that holds the judge's key; null: llm.api_key_header if the server is the same."
    )
    temperature: float | None = Field(None, ge=0, le=2, description="Sampling temperature; null: llm.temperature.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling; null: llm.top_p.")
    seed: int | None = Field(None, description="Sampling seed; null: llm.seed.")
    max_output_tokens: int | None = Field(
        None, ge=1, description="Maximum number of tokens; null: llm.max_output_tokens."
    )
    requests_per_minute: int | None = Field(
        None, ge=0, description="Only for a judge with another model or server; null: llm.requests_per_minute."
    )
    tokens_per_minute: int | None = Field(
        None, ge=0, description="Only for a judge with another model or server; null: llm.tokens_per_minute."
    )


class ModelPrice(Block):
    """Prices of a model in US dollars per million tokens."""

    input: float = Field(ge=0, description="Price of input tokens.")
    cached_input: float | None = Field(None, ge=0, description="Price of cached input tokens; null: the same as input.")
    output: float = Field(ge=0, description="Price of output tokens, including reasoning tokens.")


class Budget(Block):
    """Limits for one run. A run that reaches a limit keeps its results, and the next run continues."""

    max_cost_usd: float = Field(
        0, ge=0, description="Maximum cost in US dollars, including calls in flight; 0: no limit."
    )
    max_items: int = Field(0, ge=0, description="Maximum number of items to generate; 0: no limit.")
    prices: dict[str, ModelPrice] = Field({}, description="Prices by model name; they override the installed list.")


class Checks(Block):
    """Minimum quality of the outputs. Dagster shows a failed check on the asset."""

    min_acceptance: float = Field(
        0.0, ge=0, le=1, description="Required share of accepted items among those attempted; 0: at least one item."
    )
    min_judge_score: float = Field(0.0, ge=0, le=100, description="Required mean judge score.")
    block_export: bool = Field(False, description="true: do not export if an output check failed or has not run.")
