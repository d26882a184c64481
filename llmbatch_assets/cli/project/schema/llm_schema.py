"""The contract of the sample batch: a short answer to each interview question, and a verdict on it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class LLMOutput(BaseModel):
    """A short answer to one interview question."""

    model_config = ConfigDict(extra="forbid")

    topic: str = Field(..., description="The subject of the question.", max_length=60)
    answer: str = Field(..., description="The answer, in one short sentence.", max_length=160)
    difficulty: Literal["easy", "medium", "hard"] = Field(..., description="How hard the question is.")


class JudgeResult(BaseModel):
    """A verdict on one answer, with the reasons first."""

    model_config = ConfigDict(extra="forbid")

    reasons: list[Annotated[str, Field(max_length=100)]] = Field(
        ..., description="Why the answer passes or fails.", min_length=1, max_length=1
    )
    score: int = Field(..., description="How good the answer is.", ge=0, le=100)
    verdict: Literal["PASS", "FAIL"] = Field(..., description="PASS if the answer fits the question, else FAIL.")
