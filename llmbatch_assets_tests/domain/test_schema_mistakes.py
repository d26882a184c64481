"""All mistakes of a schema module, each with the line on which it is in the file."""

from __future__ import annotations

from llmbatch_assets.domain.schema_mistakes import MAX_TOLD, schema_mistakes

GOOD = """from pydantic import BaseModel, Field


class LLMOutput(BaseModel):
    answer: str = Field(..., description="It.")
    sure: bool
"""


def lines(source: str) -> list[int]:
    return [int(told.split(":")[1]) for told in schema_mistakes(source, "s.py")]


def test_a_good_module_has_none() -> None:
    assert schema_mistakes(GOOD, "s.py") == []


def test_each_mistake_is_told_with_its_own_line() -> None:
    bad = GOOD.replace("from pydantic", "import os\nprint(1)\nfrom pydantic", 1)
    bad = bad.replace("sure: bool", "sure: bool = os.path\n    def run(\n        self,\n    ): ...\n    other: foo()")
    assert lines(bad) == [1, 2, 8, 9, 12]


def test_a_class_of_which_all_is_wrong_is_gone_through() -> None:
    assert lines(GOOD + "\n\nclass Other(BaseModel):\n    a: f()\n    b: g()\n") == [10, 11]


def test_it_ends_where_the_rest_cannot_be_judged() -> None:
    assert lines("class A(Base):\n    x: f()\n\nimport os\n") in ([1], [4, 1])
    assert len(schema_mistakes("this is no Python", "s.py")) == 1
    assert len(schema_mistakes("import os\n" * 500, "s.py")) == MAX_TOLD
