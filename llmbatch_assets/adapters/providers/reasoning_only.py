"""Handle answers without text: the server returned the answer as reasoning, or thinking used up the length limit."""

from __future__ import annotations

from llmbatch_assets.adapters.providers.responses.completions import ReadAnswer
from llmbatch_assets.domain.answer import read_object
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.errors import AnswerError

PARSER_ADVICE = (
    "The server treats the answer as reasoning: turn off its reasoning parser (LM Studio: Developer settings, separate "
    "reasoning_content; vLLM, SGLang: --reasoning-parser; llama.cpp: --reasoning-format none), or turn off thinking in "
    "llm.extra_body"
)
LENGTH_ADVICE = (
    "The model's thinking uses up the length limit: raise llm.max_output_tokens, or turn off or limit thinking in "
    "llm.extra_body (reasoning_effort or the model's own setting)"
)


def completed(request: ChatRequest, answer: ReadAnswer) -> Completion:
    """Return the completion. If its text is empty, it has the answer from the reasoning, or a note and advice."""
    completion, reasoning = answer.completion, answer.reasoning
    if completion.text.strip():
        return completion
    if completion.finish_reason == "stop" and _is_whole_answer(request, reasoning):
        return completion.model_copy(update={"text": reasoning})
    note = f"the server returned text in {answer.reasoning_field} instead" if reasoning else ""
    advice = LENGTH_ADVICE if completion.finish_reason == "length" else PARSER_ADVICE if reasoning else ""
    return completion.model_copy(update={"note": note, "advice": advice})


def _is_whole_answer(request: ChatRequest, reasoning: str) -> bool:
    """Return whether a text is a valid answer and nothing else. An object with text around it may be a draft."""
    text = reasoning.strip()
    if request.contract is None or not (text.startswith("{") and text.endswith("}")):
        return False
    try:
        request.contract.validate(read_object(text))
    except AnswerError:
        return False
    return True
