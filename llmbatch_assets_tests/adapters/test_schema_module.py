"""A schema file is never run, whatever is in it; what it says is imported all the same."""

import re
import sys
from pathlib import Path

import pytest

from llmbatch_assets.adapters.schema_module import load_schema
from llmbatch_assets.errors import AnswerError, SchemaError
from llmbatch_assets_tests.project import SCHEMA

HEAD = "from typing import Annotated, List, Literal, Optional\nfrom pydantic import BaseModel, ConfigDict, Field\n\n\n"
MODEL = "class LLMOutput(BaseModel):\n    answer: str\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llm_schema.py"


def refused(path: Path, source: str | bytes) -> str:
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    with pytest.raises(SchemaError) as refusal:
        load_schema(path, "schema/llm_schema.py")
    return str(refusal.value)


# Nothing of it is run. MARK stands for a call that would leave a file.


@pytest.mark.parametrize(
    "source",
    [
        # At the module's level.
        "MARK\n" + HEAD + MODEL,
        HEAD + MODEL + "\nMARK\n",
        HEAD + MODEL + "\nif True:\n    MARK\n",
        HEAD + MODEL + "\nx = MARK\n",
        HEAD + MODEL + "\ndef f(x=MARK): ...\n",
        HEAD + MODEL + "\n__all__ = [MARK]\n",
        "from os import system\n" + HEAD + MODEL,
        "import os\n" + HEAD + MODEL,
        # In a class.
        HEAD + MODEL + "    MARK\n",
        HEAD + MODEL + "    other: int = MARK\n",
        HEAD + MODEL + "    other: int = Field(default=MARK)\n",
        HEAD + MODEL + "    other: list = Field(default_factory=lambda: MARK)\n",
        HEAD + MODEL + "    other: list = Field(default_factory=MARK)\n",
        HEAD + MODEL + "    other: str = Field(description=f'{MARK}')\n",
        HEAD + MODEL + "    other: str = Field(**MARK)\n",
        HEAD + MODEL + "    model_config = ConfigDict(extra=MARK)\n",
        HEAD + MODEL + "    def model_post_init(self, _): MARK\n",
        HEAD + "class LLMOutput(BaseModel, metaclass=MARK):\n    a: str\n",
        HEAD + "class LLMOutput(BaseModel, MARK):\n    a: str\n",
        HEAD + "@MARK\nclass LLMOutput(BaseModel):\n    a: str\n",
        # In an annotation, also in one that is a text, which pydantic evaluates.
        HEAD + MODEL + "    other: MARK\n",
        HEAD + MODEL + "    other: list[MARK]\n",
        HEAD + MODEL + '    other: """MARK"""\n',
        HEAD + MODEL + '    other: Optional["""MARK"""]\n',
        HEAD + MODEL + "    other: Annotated[str, MARK]\n",
        HEAD + MODEL + "    other: Literal[MARK]\n",
        # Names that lead to a call.
        "from typing import sys\n" + HEAD + MODEL + "    other: list = Field(default_factory=sys.exit)\n",
        HEAD + MODEL + "    other: list = Field(default_factory=exit)\n",
        # A cookie that shows another text to whoever believes it.
        "# coding: utf-7\n+AAo-MARK\n" + HEAD + MODEL + "\nMARK\n",
    ],
)
def test_a_hostile_file_is_refused_and_leaves_no_mark(tmp_path: Path, path: Path, source: str) -> None:
    mark = tmp_path / "mark"
    call = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    assert "schema/llm_schema.py:" in refused(path, source.replace("MARK", call))
    assert not mark.exists()


def test_a_cookie_hides_nothing(tmp_path: Path, path: Path) -> None:
    # As UTF-7 the comment is a line break and a call.
    mark = tmp_path / "mark"
    path.write_text(f"# coding: utf-7\n# +AAo-open({str(mark)!r}, 'w')\n{HEAD}{MODEL}")
    assert set(load_schema(path, "s.py").models) == {"LLMOutput"}
    assert not mark.exists()


def test_texts_in_it_stay_texts(tmp_path: Path, path: Path) -> None:
    mark = tmp_path / "mark"
    call = f"open({str(mark)!r}, 'w')"
    hostile = f'"""\n{call}\n"""\n'
    path.write_text(
        f"{hostile!r}\n{HEAD}class LLMOutput(BaseModel):\n    {hostile!r}\n"
        f"    answer: str = Field(description={hostile!r}, examples=[{hostile!r}])\n"
        f"    other: Literal[{call!r}] = {call!r}\n"
    )
    schema = load_schema(path, "s.py").output().json_schema
    assert schema["properties"]["answer"]["description"] == hostile
    assert schema["properties"]["other"]["const"] == call
    assert not mark.exists()


def test_the_folder_of_the_file_is_not_importable_and_holds_no_bytecode(path: Path) -> None:
    path.write_text(SCHEMA)
    before = list(sys.path)
    load_schema(path, "s.py")
    assert sys.path == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


# What it says.


def test_the_models_are_what_the_file_says(path: Path) -> None:
    path.write_text(SCHEMA)
    models = load_schema(path, "schema/llm_schema.py")
    assert list(models.models) == ["LLMOutput", "JudgeResult"]
    assert models.output().json_schema["properties"]["answer"] == {
        "description": "The answer.",
        "maxLength": 80,
        "title": "Answer",
        "type": "string",
    }
    assert models.output().validate({"answer": "yes", "certain": True}) == {"answer": "yes", "certain": True}
    with pytest.raises(AnswerError):
        models.output().validate({"answer": "yes", "certain": True, "more": 1})


def test_models_may_refer_to_themselves_and_to_later_ones(path: Path) -> None:
    path.write_text(
        HEAD
        + "class LLMOutput(BaseModel):\n    parts: list['Part']\n    inner: Optional['LLMOutput'] = None\n\n\n"
        + "class Part(BaseModel):\n    name: str\n"
    )
    contract = load_schema(path, "s.py").output()
    nested = {"parts": [{"name": "a"}], "inner": {"parts": [], "inner": None}}
    assert contract.validate(nested) == nested


def test_two_schemas_with_models_of_one_name_do_not_meet(tmp_path: Path) -> None:
    contracts = []
    for kind in ("str", "int"):
        path = tmp_path / f"{kind}.py"
        path.write_text(
            f"{HEAD}class Part(BaseModel):\n    v: {kind}\n\n\nclass LLMOutput(BaseModel):\n    part: 'Part'\n"
        )
        contracts.append(load_schema(path, "s.py").output())
    assert contracts[0].validate({"part": {"v": "a"}}) == {"part": {"v": "a"}}
    assert contracts[1].validate({"part": {"v": 1}}) == {"part": {"v": 1}}
    assert contracts[0].sha != contracts[1].sha


def test_the_same_contents_are_the_same_contract_wherever_they_lie(tmp_path: Path) -> None:
    shas = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(SCHEMA + ("\n# a comment\n" if name == "b" else ""))
        shas.append(load_schema(tmp_path / f"{name}.py", name).output().sha)
    assert shas[0] == shas[1]


def test_a_mark_and_lookalike_spaces_are_read_as_meant(path: Path) -> None:
    path.write_bytes(
        b"\xef\xbb\xbf" + (HEAD + "class LLMOutput(BaseModel):\n\u00a0\u00a0\u00a0\u00a0a: str\n").encode()
    )
    assert list(load_schema(path, "s.py").output().json_schema["properties"]) == ["a"]


# What it cannot say.


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (HEAD + "class LLMOutput(BaseModel:\n", "llm_schema.py:5: not Python"),
        ("", "no class derives from BaseModel"),
        (HEAD + MODEL + "\n" + MODEL, "two classes have the same name"),
        # What only pydantic can find.
        (HEAD + "class LLMOutput(BaseModel):\n    a: str = Field(pattern='(')\n", "pydantic refuses"),
        (HEAD + "class LLMOutput(BaseModel):\n    a: dict[str]\n", "pydantic refuses"),
        (
            HEAD + "class LLMOutput(BaseModel):\n    a: list = Field(default=[], default_factory=list)\n",
            "pydantic refuses",
        ),
        (HEAD + "class LLMOutput(BaseModel):\n    a: int = Field(gt='x')\n", "pydantic refuses"),
        # Deeper than a parser goes.
        (
            HEAD + "class LLMOutput(BaseModel):\n    a: " + "list[" * 250 + "str" + "]" * 250 + "\n",
            "not Python|refuses|deep",
        ),
        (
            HEAD + "class LLMOutput(BaseModel):\n    a: " + "|".join(["str"] * 3000) + "\n",
            "not Python|refuses|deep|long",
        ),
        # Nothing like text.
        ("\x00", "not Python"),
    ],
    ids=lambda value: value[-40:],
)
def test_what_cannot_be_a_schema_is_told(path: Path, source: str, told: str) -> None:
    assert re.search(told, refused(path, source))


def test_a_refused_schema_leaves_no_module_behind(path: Path) -> None:
    before = set(sys.modules)
    refused(path, HEAD + "class LLMOutput(BaseModel):\n    a: str = Field(pattern='[')\n")
    assert {name for name in set(sys.modules) - before if name.startswith("llmbatch_schema")} == set()


def test_a_file_that_is_not_utf8_is_told(path: Path) -> None:
    assert "not UTF-8 at byte" in refused(path, b"# caf\xe9\n" + SCHEMA.encode())


def test_a_missing_file_is_told(path: Path) -> None:
    with pytest.raises(SchemaError, match=r"llm_schema\.py does not exist"):
        load_schema(path, "s.py")
