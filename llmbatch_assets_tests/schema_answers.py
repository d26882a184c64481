"""Schema modules as a model answers with them, and a project whose schema is to be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmbatch_assets_tests.chat_server import ChatCall
from llmbatch_assets_tests.project import SCHEMA, Project

SHIPPED_PROMPT = Path(__file__).parent.parent / "prompts/schema_auto_py_generation.yaml"
SCHEMA_PY = "schema/llm_schema.py"
# What the model is asked for when it is to write a schema.
ASKS = "What the outputs are for"

NEW = SCHEMA.replace("max_length=80", "max_length=90")
BROKEN = SCHEMA.replace("answer: str", "answer: bytes")
HOSTILE = f"{NEW}\n\n__import__('pathlib').Path('marker').touch()\n"
LOOSE = NEW.replace('    model_config = ConfigDict(extra="forbid")\n\n', "")


def fenced(code: str) -> str:
    return f"```python\n{code}```\n"


def asks_for_a_schema(call: ChatCall) -> bool:
    """Whether a call asks for a module."""
    return ASKS in call.text


def with_schema_prompt(make: Callable[..., Project], *, schema: bool = True, **blocks: object) -> Project:
    """A project with the shipped prompt; without ``schema`` the module is missing."""
    project = make(**blocks)
    project.write("prompts/schema_auto_py_generation.yaml", SHIPPED_PROMPT.read_text(encoding="utf-8"))
    if not schema:
        project.path(SCHEMA_PY).unlink()
    return project


def archived(project: Project) -> dict[str, str]:
    """Archived files by name."""
    folder = project.path("archived")
    return {path.name: path.read_text() for path in sorted(folder.iterdir())} if folder.exists() else {}


def schema_failures(project: Project) -> list[str]:
    """What was wrong with each refused answer, in their order."""
    folder = project.path("artifacts/cache/schema_failures")
    return [project.json(str(path.relative_to(project.root)))["feedback"] for path in sorted(folder.glob("*.json"))]
