"""The assets of one batch."""

from __future__ import annotations

# The assets of each stage, in the order in which they run. Kept here because importing the other modules loads Dagster.
STAGES = {
    "prepare": ("llm_schema_py", "llm_schema_txt", "input_snapshot", "group_contexts", "work_items"),
    "generate": ("llm_outputs",),
    "publish": ("export", "report"),
}
