"""Handle servers that return the model's answer as reasoning and leave the answer itself empty."""

from __future__ import annotations

from llmbatch_assets.adapters.providers.responses.completions import ReadAnswer
from llmbatch_assets.domain.answer import read_object
from llmbatch_assets.domain.outcome import Completion
from llmbatch_assets.domain.request import ChatRequest
from llmbatch_assets.errors import AnswerError, RunPermanentError, StopCause

# This many requests without text, and no answer with text before, mean that the server is misconfigured.
MOST_EMPTY = 3


class ReasoningOnly:
    """Takes the answer from the reasoning if it is clearly one, and stops a run in which no answer has text."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._has_text = False
        self._empty: set[object] = set()

    def completed(self, request: ChatRequest, answer: ReadAnswer) -> Completion:
        """Return the completion, with the answer from the reasoning if the text is empty.

        Raises ``RunPermanentError`` if the first few answers contain nothing but reasoning.
        """
        completion = answer.completion
        self._has_text = self._has_text or bool(completion.text.strip())
        if completion.text.strip() or completion.finish_reason != "stop" or not answer.reasoning:
            return completion
        if _is_whole_answer(request, answer.reasoning):
            return completion.model_copy(update={"text": answer.reasoning})
        self._empty.add(request.subject.work_id if request.subject else id(request))
        if not self._has_text and len(self._empty) >= MOST_EMPTY:
            raise self._error(answer)
        return completion.model_copy(update={"note": f"the server returned text in {answer.reasoning_field} instead"})

    def _error(self, answer: ReadAnswer) -> RunPermanentError:
        error = RunPermanentError(
            StopCause.BAD_SETTING,
            f"{self._base_url} returned {MOST_EMPTY} answers with no text, only {answer.reasoning_field}: the server treats "
            "the answer as reasoning. Turn off its reasoning parser (LM Studio: Developer settings, separate "
            "reasoning_content; vLLM, SGLang: --reasoning-parser; llama.cpp: --reasoning-format none), or turn off thinking "
            "in llm.extra_body, then run again",
        )
        error.usage, error.status, error.request_id = answer.completion.usage, 200, answer.completion.request_id
        return error


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
