"""The contract of the sample batch: one study card for each interview question."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class LLMOutput(BaseModel):
    """A study card for one interview question."""

    model_config = ConfigDict(extra="forbid")

    topic: str = Field(..., description="What the question is about, in two to five words.", max_length=60)
    difficulty: Literal["easy", "medium", "hard"] = Field(..., description="How hard the question is.")
    hint: str = Field(..., description="One sentence that helps a candidate to answer.", max_length=160)


class JudgeResult(BaseModel):
    """A verdict on one study card, with its reasons first."""

    model_config = ConfigDict(extra="forbid")

    reasons: list[Annotated[str, Field(max_length=120)]] = Field(
        ..., description="One or two short reasons for the score.", min_length=1, max_length=2
    )
    score: int = Field(..., description="How good the card is, from 0 to 100.", ge=0, le=100)
    verdict: Literal["PASS", "FAIL"] = Field(..., description="PASS if the card fits the question, else FAIL.")
