"""The batch of a project with Data Designer (PyPI: data-designer), its files in the folder `designer` of the project.

    PYTHON -m benchmarks.peers.with_data_designer BASE_URL PROJECT WORKERS

PYTHON is the interpreter of an environment that has Data Designer. It describes the schema in the prompt, as ours does, but
does not send it as a response format. It also counts the tokens of a sample of the answers if the folder in the environment
variable TIKTOKEN_CACHE_DIR has the vocabulary.
"""

from __future__ import annotations

import sys
from pathlib import Path

import data_designer.config as dd
from data_designer.interface import DataDesigner

from benchmarks.bare_loops import output_model, requests

COLUMNS = ("id", "team", "question")


def configuration(project: Path, workers: int) -> dd.DataDesignerConfigBuilder:
    """The table as a seed and one column of answers."""
    parameters = dd.ChatCompletionInferenceParams(temperature=0.5, max_parallel_requests=workers)
    model = dd.ModelConfig(alias="model", model="test-model", provider="local", inference_parameters=parameters)
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.LocalFileSeedSource(path=str(project / "raw_data/input.csv")))
    builder.add_column(
        dd.LLMStructuredColumnConfig(
            name="output",
            model_alias="model",
            system_prompt="Answer as JSON.",
            prompt="\n".join(f"{name}: {{{{ {name} }}}}" for name in COLUMNS) + "\n\nAnswer it.",
            output_format=output_model(project / "schema/llm_schema.py"),
        )
    )
    return builder


def main(base_url: str, project: Path, workers: int) -> None:
    """Every row of the table to a JSON Lines file."""
    provider = dd.ModelProvider(name="local", endpoint=base_url, api_key="secret-key")
    designer = DataDesigner(project / "designer", model_providers=[provider])
    designer.set_run_config(dd.RunConfig(otel_metrics_port=None))
    rows = len(requests(project / "raw_data/input.csv", {}))
    made = designer.create(configuration(project, workers), num_records=rows, resume=dd.ResumeMode.IF_POSSIBLE)
    made.export(project / "designer/output.jsonl")


if __name__ == "__main__":
    url, folder, in_flight = sys.argv[1:]
    main(url, Path(folder), int(in_flight))
