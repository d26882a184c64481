"""The JSON made from that of another materialization equals, to the letter, what Dagster serializes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.execution.plan.handle import StepHandle
from dagster._serdes import serialize_value
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.resources.events.item_events import EventOrigin, MaterializedEvent
from llmbatch_assets.resources.materialization_json import MaterializationJson

STEP = NodeHandle("llm_outputs", None)
TAGS = {"dagster/code_version": "c", "dagster/input_data_version/prompts": "p"}
# No surrogates: cells and answers have none, and partition keys neither.
TEXTS = st.text(max_size=20)


def origin(report: str) -> EventOrigin:
    return EventOrigin(
        run_id="r",
        job_name="generate",
        step_key="llm_outputs",
        step_handle=StepHandle(node_handle=STEP, key="llm_outputs"),
        node_handle=STEP,
        step_kind="COMPUTE",
        step_tags={"op_name": "llm_outputs"},
        pid=1,
        asset_key=dg.AssetKey(["second", "llm_outputs"]),
        folder=PurePosixPath("artifacts/cache/llm_outputs"),
        versions=TAGS,
        report=report,
    )


def materialized(key: str, context: str, answer: Any, at: float, *, hit: bool) -> MaterializedEvent:
    output = AcceptedOutput(
        meta={"cache_id": "c1", "attempt_outer": 1, "model": "test-model"},
        parsed={"answer": answer},
        judge={"verdict": "PASS", "score": 90} if hit else None,
        usage=TokenUsage(requests=1, input_tokens=10, output_tokens=5),
        latency_sec=0.5,
    )
    return MaterializedEvent(WorkItem(key, key, "red", 0, None, context, {}), output, output.usage, hit, at)


EVENTS = st.builds(
    materialized, TEXTS, TEXTS, TEXTS | st.integers() | st.lists(TEXTS), st.floats(0, 2e9), hit=st.booleans()
)


@pytest.mark.parametrize("report", ["", "file:///reports/report.html", "http://127.0.0.1:3000/report.html"])
@given(sample=EVENTS, other=EVENTS)
def test_it_is_what_dagster_makes(report: str, sample: MaterializedEvent, other: MaterializedEvent) -> None:
    of_step = origin(report)
    made = MaterializationJson(serialize_value(sample.entry(of_step)))
    for event in (other, sample):
        assert made.of(event.values(of_step)) == serialize_value(event.entry(of_step))


def test_a_materialization_with_other_metadata_is_refused() -> None:
    event = materialized("red-1", "How tall?", "tall", 1.0, hit=False)
    made = MaterializationJson(serialize_value(event.entry(origin("http://127.0.0.1:3000/report.html"))))
    with pytest.raises(KeyError, match="report"):
        made.of(event.values(origin("")))
