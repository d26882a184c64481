"""A schema file is never run, whatever is in it; what it says is imported all the same."""

import itertools
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmbatch_assets.adapters.schema_module import load_schema, load_source
from llmbatch_assets.domain.schema.contract import SchemaModels
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


def test_a_cookie_is_refused_and_hides_nothing(tmp_path: Path, path: Path) -> None:
    # As UTF-7 the comment is a line break and a call.
    mark = tmp_path / "mark"
    source = f"# coding: utf-7\n# +AAo-open({str(mark)!r}, 'w')\n{HEAD}{MODEL}"
    assert "schema/llm_schema.py:1: an encoding declaration" in refused(path, source)
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
        (HEAD + MODEL + "\n" + MODEL, ":8: a second class named LLMOutput"),
        # What only pydantic can find.
        (HEAD + "class LLMOutput(BaseModel):\n    a: int = 'x'\n", "pydantic refuses.*the default of LLMOutput.a"),
        (
            HEAD + "class LLMOutput(BaseModel):\n    a: int = Field(9, le=5)\n",
            "pydantic refuses.*the default of LLMOutput.a",
        ),
        (HEAD + "class LLMOutput(BaseModel):\n    a: int | str = Field(discriminator='b')\n", "pydantic refuses"),
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
def test_what_cannot_be_a_schema_is_reported(path: Path, source: str, told: str) -> None:
    assert re.search(told, refused(path, source))


def test_a_refused_schema_leaves_no_module_behind(path: Path) -> None:
    before = set(sys.modules)
    refused(path, HEAD + "class LLMOutput(BaseModel):\n    a: str = Field(pattern='[')\n")
    assert {name for name in set(sys.modules) - before if name.startswith("llmbatch_schema")} == set()


def test_a_file_that_is_not_utf8_is_reported(path: Path) -> None:
    assert "not UTF-8 at byte" in refused(path, b"# caf\xe9\n" + SCHEMA.encode())


def test_a_missing_file_is_reported(path: Path) -> None:
    with pytest.raises(SchemaError, match=r"llm_schema\.py does not exist"):
        load_schema(path, "s.py")


# What would take for ever.


@pytest.mark.parametrize(
    "fields",
    [
        "a: str = Field(min_length=1_000_000_000)",
        "a: list[str] = Field(min_length=1_000_000_000)",
        "a: dict[str, str] = Field(min_length=1_000_000_000)",
        "a: L0",
        "a: 'LLMOutput'",
    ],
)
def test_a_schema_that_no_answer_of_a_bearable_size_keeps_is_refused_at_once(path: Path, fields: str) -> None:
    # Trying it out once made such an answer: eleven classes of four fields each took a minute and a half.
    levels = "".join(
        f"class L{level}(BaseModel):\n" + "".join(f"    f{field}: 'L{level + 1}'\n" for field in range(4))
        for level in range(12)
    )
    started = time.perf_counter()
    told = refused(
        path, f"{HEAD}{levels}class L12(BaseModel):\n    end: str\nclass LLMOutput(BaseModel):\n    {fields}\n"
    )
    assert time.perf_counter() - started < 3
    assert len(told.splitlines()) == 1


def test_a_schema_of_two_hundred_lines_is_there_before_one_looks_up() -> None:
    field = '    f{n}: {kind} = Field(..., description="What field {n} holds.")\n'
    kinds = ("str", "Annotated[str, Field(max_length=9)]", 'Literal["a", "b"]', "list[int]", "Optional[float]", "bool")
    fields = "".join(field.format(n=n, kind=kinds[n % len(kinds)]) for n in range(18))
    parts = "".join(f"class Part{n}(BaseModel):\n{fields}    next: Optional['Part{n + 1}'] = None\n" for n in range(9))
    source = f"{HEAD}{parts}class Part9(BaseModel):\n{fields}\n{MODEL}    first: Part0\n"
    assert source.count("\n") > 200
    rounds = []
    for number in range(3):
        started = time.process_time()
        load_source(f"{source}    again_{number}: str\n", "s.py")
        rounds.append(time.process_time() - started)
    # The figure itself is measured by a benchmark; here only what grows beyond all bounds fails.
    assert min(rounds) < 1.5


# Many at once.


def test_threads_that_import_one_schema_all_get_the_whole_of_it() -> None:
    # One of them found the module that another one was still making.
    numbers = itertools.count(1)
    for _ in range(10):
        source = f"{SCHEMA}\n\nclass Last{next(numbers)}{time.time_ns()}(BaseModel):\n    a: str\n"
        with ThreadPoolExecutor(8) as at_once:
            found = list(at_once.map(lambda text: list(load_source(text, "s.py").models), [source] * 8))
        assert [len(names) for names in found] == [3] * 8


# A trusted file is run.


def trusted(path: Path, source: str) -> SchemaModels:
    path.write_text(source)
    return load_schema(path, "schema/llm_schema.py", trust=True)


VALIDATED = f"""{HEAD}from pydantic import field_validator


class LLMOutput(BaseModel):
    answer: str

    @field_validator("answer")
    @classmethod
    def _is_polite(cls, text: str) -> str:
        if "please" not in text:
            raise ValueError("say please")
        return text
"""


def test_where_it_is_trusted_the_file_is_imported_as_it_is_and_the_log_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = f"{VALIDATED}    story: str = 'of the log'\n"
    contract = trusted(path, source).output()

    told = "schema/llm_schema.py is imported and executed as is because llm_schema.trust is true"
    assert caplog.messages == [told]
    # A run loads the file many times. It used to warn each time.
    trusted(path, source)
    assert caplog.messages == [told]
    assert contract.validate({"answer": "yes please"}) == {"answer": "yes please", "story": "of the log"}
    with pytest.raises(AnswerError, match="say please"):
        contract.validate({"answer": "yes"})


def test_a_trusted_files_code_is_part_of_its_fingerprint_and_its_comments_are_not(path: Path) -> None:
    first = trusted(path, VALIDATED).output().sha
    assert trusted(path, VALIDATED + "\n# a comment\n").output().sha == first
    assert trusted(path, VALIDATED.replace('"please" not', '"pretty please" not')).output().sha != first


def test_what_is_not_trusted_says_nothing_of_trust(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(SCHEMA)
    load_schema(path, "s.py")
    assert caplog.text == ""
    assert "field_validator" in refused(path, VALIDATED)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        # A syntax error was an UnboundLocalError of ours.
        ("class LLMOutput(:", "SyntaxError"),
        (f"{HEAD}{MODEL}    other: 'Nowhere'\n", "Nowhere"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("x = 1", "no class derives from BaseModel"),
    ],
)
def test_a_trusted_file_that_cannot_be_imported_is_reported(path: Path, source: str, told: str) -> None:
    for _ in range(2):
        with pytest.raises(SchemaError, match=rf"schema/llm_schema\.py: .*{told}"):
            trusted(path, source)
