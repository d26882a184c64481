"""What is said of a ticket."""

from pydantic import BaseModel, ConfigDict, Field


class LLMOutput(BaseModel):
    """The triage of one ticket."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(..., description="Why it is urgent, or is not, in one sentence.", max_length=200)
    urgent: bool = Field(..., description="Whether somebody must look at it today.")
