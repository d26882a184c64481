"""Statuses, codes and messages of providers which mean that no call of a run can succeed."""

from __future__ import annotations

import re

from llmbatch_assets.errors import StopCause

STOPPING_STATUSES = {
    401: StopCause.KEY_REFUSED,
    402: StopCause.NO_QUOTA,
    403: StopCause.KEY_REFUSED,
    404: StopCause.UNKNOWN_MODEL,
    405: StopCause.UNKNOWN_MODEL,
    407: StopCause.PROXY_REFUSED,
    410: StopCause.UNKNOWN_MODEL,
}
# Codes, types and reasons, in lower case.
STOPPING_CODES = {
    # OpenAI, Azure.
    "insufficient_quota": StopCause.NO_QUOTA,
    "billing_not_active": StopCause.NO_QUOTA,
    "billing_hard_limit_reached": StopCause.NO_QUOTA,
    "invalid_api_key": StopCause.KEY_REFUSED,
    "model_not_found": StopCause.UNKNOWN_MODEL,
    "deploymentnotfound": StopCause.UNKNOWN_MODEL,
    "unsupported_parameter": StopCause.BAD_SETTING,
    "unsupported_value": StopCause.BAD_SETTING,
    "unknown_parameter": StopCause.BAD_SETTING,
    # Anthropic, LiteLLM, DeepSeek, gateways.
    "billing_error": StopCause.NO_QUOTA,
    "budget_exceeded": StopCause.NO_QUOTA,
    "insufficient_balance": StopCause.NO_QUOTA,
    "insufficient_credits": StopCause.NO_QUOTA,
    "insufficient_user_quota": StopCause.NO_QUOTA,
    "credit_limit_exceeded": StopCause.NO_QUOTA,
    # Moonshot, Alibaba, ByteDance, Zhipu.
    "exceeded_current_quota_error": StopCause.NO_QUOTA,
    "arrearage": StopCause.NO_QUOTA,
    "accountoverdueerror": StopCause.NO_QUOTA,
    "1113": StopCause.NO_QUOTA,
    # Gemini, Groq, Mistral.
    "api_key_invalid": StopCause.KEY_REFUSED,
    "model_decommissioned": StopCause.UNKNOWN_MODEL,
    "invalid_model": StopCause.UNKNOWN_MODEL,
}
# For providers without a code for this. "Quota" alone does not count: many providers use it for a plain rate limit.
STOPPING_WORDS = {
    StopCause.NO_QUOTA: re.compile(
        # Anthropic (400), LiteLLM (400, 429), DeepSeek and others (400 to 403).
        r"credit balance is too low|budget has been exceeded|exceeded ?budget\b|crossed budget"
        r"|(?:insufficient|not enough)(?: account)? (?:balance|credits?|funds)"
        # xAI (403, 429), OpenRouter, Hugging Face.
        r"|(?:out of|all available|requires more) credits|monthly spending limit|monthly included credits"
        # Alibaba, ByteDance, Zhipu.
        r"|account is in good standing|overdue (?:account|payment)|account is in arrears",
        re.IGNORECASE,
    ),
    # xAI (400) and others.
    StopCause.KEY_REFUSED: re.compile(
        r"(?:incorrect|invalid) api[- ]key|api[- ]key (?:is )?(?:not valid|invalid|expired)", re.IGNORECASE
    ),
    StopCause.UNKNOWN_MODEL: re.compile(
        # Groq, Azure, Gemini: a model that no longer exists.
        r"\bmodel\b.{0,200}?\b(?:decommissioned|retired|discontinued|been shut down|no longer (?:available|supported))"
        # DeepSeek, Mistral, OpenRouter, LiteLLM: a name that no model ever had.
        r"|\bmodel not exist\b|\binvalid model(?: name)?\b|\bnot a valid model\b",
        re.IGNORECASE | re.DOTALL,
    ),
}
# A quota that is renewed once a day: Gemini, Groq and OpenAI, OpenRouter.
DAY_QUOTA = re.compile(r"PerDay|\bper[- ]day\b|\([RT]PD\)|\bdaily (?:quota|limit)", re.IGNORECASE)

ADVICE = {
    StopCause.NO_QUOTA: "the provider reports that the quota is used up; raise it or use another key, then run again",
    StopCause.KEY_REFUSED: "the provider refused the key; correct the variable that holds it, then run again",
    StopCause.UNKNOWN_MODEL: "no such model or path; correct llm.model_name or llm.base_url",
    StopCause.PROXY_REFUSED: "the proxy requires a login; correct the proxy's environment variables",
    StopCause.BAD_SETTING: "the provider rejects a setting that every call sends; correct it in the llm block",
    StopCause.REDIRECTED: "the server redirects calls; correct llm.base_url",
}
DAY_ADVICE = (
    "the provider reports that the daily quota is used up; run again once it resets, raise it, or use another key"
)
