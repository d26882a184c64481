"""Remedies for failed items, by the cause of the last attempt."""

from __future__ import annotations

from llmbatch_assets.errors import FailureCause

_ANSWER = "Read the answer, then improve the prompt or the schema."
_RETRY = "Run generate_pending again."
_UNCHANGED = (
    "To retry unchanged, set retry_failed: true in the Launchpad of generate_pending, or run with --retry-failed."
)
_ROW_OR_PROMPT = f"Change the row or the prompt, then run generate_pending. {_UNCHANGED}"

REMEDIES: dict[str, str] = {
    FailureCause.NOT_JSON: "State in the prompt that the answer must be one JSON object, or set "
    "llm.structured_output: json_schema if the server supports it.",
    FailureCause.EMPTY_ANSWER: "Raise llm.max_output_tokens, especially for a reasoning model.",
    FailureCause.CUT_OFF: "Raise llm.max_output_tokens, or limit lengths in the schema.",
    FailureCause.SCHEMA_MISMATCH: "Compare the message with the schema; often the schema requires something that the "
    "prompt does not mention.",
    FailureCause.WRAPPED: "Use {llm_schema} in the prompt instead of {llm_schema_txt}.",
    FailureCause.NO_CODE: "Use a larger model, or write the schema module yourself.",
    FailureCause.JUDGE_REJECTED: "Read the judge's reasons; improve the prompt, or lower judge.min_score.",
    FailureCause.JUDGE_UNREADABLE: "Improve the judge's prompt or use another judge; the next run only asks the judge.",
    FailureCause.RATE_LIMITED: f"{_RETRY} If it happens often, lower llm.max_workers or set llm.requests_per_minute.",
    FailureCause.SERVER_ERROR: f"{_RETRY} The provider has a problem, which the message quotes.",
    FailureCause.TIMEOUT: "The calls timed out even with four times llm.timeout_sec. Raise llm.timeout_sec, or lower llm.max_output_tokens, and run generate_pending again.",
    FailureCause.CONNECTION: f"Check the server and any proxies. {_RETRY}",
    FailureCause.BROKEN_BODY: "Check what llm.base_url points to; a login page comes from a proxy.",
    FailureCause.TOO_LARGE: "Check what llm.base_url points to; no model writes that much.",
    FailureCause.STRUCTURED_OUTPUT: f"{_RETRY} If it persists, set llm.structured_output to a mode that the server supports.",
    FailureCause.REFUSED: _ROW_OR_PROMPT,
    FailureCause.CONTENT_FILTER: f"{_ROW_OR_PROMPT} Or use another provider.",
    FailureCause.CONTEXT_TOO_LONG: "Set context.max_context_chars or grouping.max_rows_per_group, or use fewer columns; "
    f"then run generate_pending. {_UNCHANGED}",
    FailureCause.BAD_REQUEST: f"Read the message. If all items fail like this, check the settings. {_UNCHANGED}",
    FailureCause.UNREADABLE_FAILURE: _RETRY,
}


def remedy(cause: str) -> str:
    """Return what to do about a failure. The cause may be one that another version wrote."""
    return REMEDIES.get(cause, _ANSWER)
