"""What a judge said of an output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

# Fields of a verdict whose being true means PASS.
PASS_WORDS = ("pass", "passed", "is_pass", "ok", "success")


class Verdict(BaseModel):
    """A judge's answer, read the one way that counts: accepted or not, and why."""

    model_config = ConfigDict(frozen=True)

    accepted: bool
    score: float | None
    reasons: list[str]
    answer: dict[str, Any]


def read_verdict(answer: dict[str, Any], min_score: int) -> Verdict:
    """Accepted means PASS (or a true ``pass``, ``passed``, ``is_pass``, ``ok``, ``success``) and the score reached."""
    said = answer.get("verdict")
    passed = said.upper() == "PASS" if isinstance(said, str) else any(answer.get(word) is True for word in PASS_WORDS)
    score = answer.get("score")
    score = score if isinstance(score, int | float) and not isinstance(score, bool) else None
    reached = min_score <= 0 or (score is not None and score >= min_score)
    told = answer.get("reasons") or []
    reasons = [told] if isinstance(told, str) else [str(reason) for reason in told]
    if passed and not reached:
        reasons = [*reasons, f"The score {score} is below {min_score}."]
    return Verdict(accepted=passed and reached, score=score, reasons=reasons, answer=answer)


def verdict_field(names: Iterable[str]) -> str:
    """Which of a judge's fields says whether it passed."""
    known = set(names)
    return next((name for name in ("verdict", *PASS_WORDS) if name in known), "verdict")


def feedback(verdict: Verdict) -> str:
    """What the generating model is told about a rejection."""
    reasons = "\n".join(f"- {reason}" for reason in verdict.reasons) or "- no reason was given"
    return f"A reviewer rejected the answer:\n{reasons}"
