"""What is told between the stages of a run."""

from __future__ import annotations

from collections.abc import Callable

from llmbatch_assets_tests.chat_server import Answer, ChatCall, ChatServer, says
from llmbatch_assets_tests.project import SCHEMA, Project


def test_a_schema_that_changes_while_outputs_are_made_is_told(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with(llm={"max_workers": 1})

    def edits(call: ChatCall) -> Answer:
        project.write("schema/llm_schema.py", SCHEMA.replace("max_length=80", "max_length=70"))
        return says({"answer": "yes", "certain": True})

    server.script(lambda call: call.number == 5, edits)
    ended = project.llmbatch_here("run")
    assert "the schema changed while the run went on" in ended.stdout
