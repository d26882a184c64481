"""The batch of a project with Curator (PyPI: bespokelabs-curator), its cache in the folder `curator` of the project.

    PYTHON -m benchmarks.peers.with_curator BASE_URL PROJECT WORKERS

PYTHON is the interpreter of an environment that has Curator.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# Points tiktoken to litellm's copy of a vocabulary, which Curator would otherwise download to count tokens.
import litellm.litellm_core_utils.default_encoding  # noqa: F401
from bespokelabs import curator
from datasets import Dataset

from benchmarks.bare_loops import output_model, requests

NO_LIMIT = 10**9


class Answers(curator.LLM):  # type: ignore[misc] # the package is not installed where types are checked
    """One call per row; the answer's fields become the columns."""

    def prompt(self, row: dict[str, Any]) -> list[dict[str, str]]:
        """The same messages that the bare loops send."""
        messages: list[dict[str, str]] = row["messages"]
        return messages

    def parse(self, _row: dict[str, Any], answer: Any) -> dict[str, Any]:
        """The validated answer."""
        fields: dict[str, Any] = answer.model_dump()
        return fields


def main(base_url: str, project: Path, workers: int) -> None:
    """Every row of the table to a JSON Lines file."""
    model = output_model(project / "schema/llm_schema.py")
    calls = requests(project / "raw_data/input.csv", model.model_json_schema())
    llm = Answers(
        model_name="test-model",
        response_format=model,
        backend="openai",
        generation_params={"temperature": 0.5},
        backend_params={
            "base_url": base_url,
            "api_key": "secret-key",
            "max_concurrent_requests": workers,
            "max_requests_per_minute": NO_LIMIT,
            "max_tokens_per_minute": NO_LIMIT,
        },
    )
    made = llm(
        Dataset.from_list([{"messages": call["messages"]} for call in calls]), working_dir=str(project / "curator")
    )
    made.dataset.to_json(project / "curator/output.jsonl")


if __name__ == "__main__":
    url, folder, in_flight = sys.argv[1:]
    main(url, Path(folder), int(in_flight))
