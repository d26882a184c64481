"""Schema modules by the hundred: what acts is refused everywhere and acts nowhere, what describes keeps its meaning.

The modules are files, see ``schema_corpus``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from llmbatch_assets import definitions
from llmbatch_assets.adapters.schema_module import load_schema
from llmbatch_assets.domain.schema.grammar import parse_schema
from llmbatch_assets.domain.schema.spec import render_schema
from llmbatch_assets.domain.text import harden
from llmbatch_assets.errors import AnswerError, SchemaError
from llmbatch_assets_tests.domain.strategies import JSON, quick
from llmbatch_assets_tests.project import Project, make_project
from llmbatch_assets_tests.schema_corpus import AWKWARD, HOSTILE, LEGITIMATE, MARKER, Module
from llmbatch_assets_tests.schema_corpus.strategies import DrawnModule, modules, spoilt

SHOWN = "schema/llm_schema.py"
LONGEST_SEC = 5.0
LONGEST_MESSAGE = 500
ADVICE = re.compile(
    r";|\b(use|write|choose|keep|known|name|rename|give|import|remove|drop|leave|put|make|save|add|at most)\b"
)


def test_the_corpus_is_complete() -> None:
    kinds = {"hostile": HOSTILE, "legitimate": LEGITIMATE, "awkward": AWKWARD}
    assert {kind: len(found) > least for (kind, found), least in zip(kinds.items(), (400, 40, 120), strict=True)} == (
        dict.fromkeys(kinds, True)
    )
    assert {module.header.first for module in AWKWARD} == {"accepted", "refused", "either"}


# What the package makes of a module.


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    """Forget the schemas that a test imports: no outcome may hang on the order of the tests."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("llmbatch_schema_"):
            del sys.modules[name]


class Outcome(NamedTuple):
    """What came of reading a module: its refusal, or nothing if it was accepted."""

    refusal: str | None
    crash: Exception | None
    took: float
    acted: bool
    muttered: list[str]


@contextmanager
def marker(path: Path) -> Iterator[Path]:
    """Let the modules' payloads make this file."""
    before = os.environ.get(MARKER)
    os.environ[MARKER] = str(path)
    try:
        yield path
    finally:
        os.environ.pop(MARKER)
        if before is not None:
            os.environ[MARKER] = before


def outcome(module: Module) -> Outcome:
    """Read the module as a run does, and use what it gives."""
    refusal = crash = None
    with (
        tempfile.TemporaryDirectory() as folder,
        marker(Path(folder) / "mark") as mark,
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        path = module.put(Path(folder) / SHOWN)
        started = time.process_time()
        try:
            use(path)
        except SchemaError as refused:
            refusal = str(refused)
        except Exception as other:  # noqa: BLE001  # whatever it is, it is the finding
            crash = other
        took = time.process_time() - started
        return Outcome(refusal, crash, took, mark.exists(), [str(warning.message) for warning in warned])


def use(path: Path) -> None:
    """All that is done with a schema before and after the first answer."""
    models = load_schema(path, SHOWN)
    contract = models.output()
    assert contract.sha
    assert models.text().encode()
    for answer in ({}, {"a": "x"}, {"a": "x", "b": 1}, {"a": "x", "b": "x"}):
        try:
            contract.validate(answer)
        except AnswerError:
            continue


# Hostile modules.


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_what_is_said_to_act_would_act_if_it_were_run(tmp_path: Path) -> None:
    acting = [module for module in HOSTILE if module.header.first.startswith("marks")]
    if sys.version_info < (3, 12):
        acting = [module for module in acting if module.header.first != "marks from 3.12"]
    for module in acting:
        module.put(tmp_path / f"{module.name}.py")
    subprocess.run(
        [sys.executable, "-m", "llmbatch_assets_tests.schema_corpus.acting", str(tmp_path)],
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert [module.name for module in acting if not (tmp_path / f"{module.name}.mark").exists()] == []
    assert len(acting) > 200


@pytest.fixture(scope="module")
def tableless(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project without a table: a run of it ends before the first call, whatever becomes of the schema."""
    project = make_project(tmp_path_factory.mktemp("corpus") / "project")
    project.path("raw_data/input.csv").unlink()
    return project


@pytest.mark.parametrize("module", HOSTILE, ids=repr)
def test_a_hostile_module_is_refused_at_once_and_does_nothing(
    module: Module, tableless: Project, tmp_path: Path
) -> None:
    found = outcome(module)

    assert not found.acted
    assert found.crash is None
    assert found.refusal is not None
    assert found.took < LONGEST_SEC
    _names_line_and_construct_and_what_to_write_instead(module, found.refusal)
    _ends_a_run_in_one_message(module, tableless, tmp_path / "mark")


def _names_line_and_construct_and_what_to_write_instead(module: Module, told: str) -> None:
    _, lines, words = module.header

    where, _, what = told.partition(": ")
    if lines != "-":
        assert where in [f"{SHOWN}:{line}" for line in lines.split(", ")]
    assert re.search(words, what, re.IGNORECASE), f"none of {words} in {told}"
    # What is wrong with a text that is no Python is Python's to say.
    assert ADVICE.search(what) or "not Python" in what
    assert len(told.splitlines()) == 1
    assert len(told) < LONGEST_MESSAGE


def _ends_a_run_in_one_message(module: Module, tableless: Project, mark: Path) -> None:
    module.put(tableless.path(SHOWN))
    before = tableless.tree()

    with marker(mark), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ended = tableless.llmbatch_here("run")

    assert not mark.exists()
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("llmbatch: ")
    assert ended.stderr.count("llmbatch: ") == 1
    assert "llm_schema.py" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert tableless.tree() == before


def batches(root: Path, found: Iterable[Module]) -> Project:
    """A project with a batch for each of the modules."""
    project = make_project(root)
    for module in found:
        project.parameters(module.name)
        module.put(project.path(f"schema/{module.name}/llm_schema.py"))
    return project


def test_the_code_location_loads_with_any_of_them_and_runs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It never reads a schema: a few of all sorts are enough to show it.
    some = HOSTILE[::40]
    project = batches(tmp_path / "project", some)
    monkeypatch.chdir(project.root)
    monkeypatch.delenv("LLMBATCH_PARAMETERS", raising=False)

    with marker(tmp_path / "mark") as mark:
        loaded = definitions.defs()

    assert dg.AssetKey([some[0].name, "llm_schema_py"]) in {spec.key for spec in loaded.resolve_all_asset_specs()}
    assert not mark.exists()


# Legitimate modules.


def text_of(module: Module) -> str:
    """The module as it is read from a file."""
    return harden(module.source.decode())


NUMBERS = itertools.count()


@contextmanager
def imported(source: bytes | str) -> Iterator[dict[str, type[BaseModel]]]:
    """The models of a module as Python makes them: the corpus is ours, so it may be run."""
    module = types.ModuleType(f"module_of_the_corpus_{next(NUMBERS)}")
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, "module_of_the_corpus.py", "exec"), vars(module))  # noqa: S102  # as said
        named = {name: value for name, value in vars(module).items() if isinstance(value, type)}
        models = {name: value for name, value in named.items() if value.__module__ == module.__name__}
        yield {name: value for name, value in models.items() if issubclass(value, BaseModel)}
    finally:
        del sys.modules[module.__name__]


def asked_by(models: Mapping[str, type[BaseModel]]) -> dict[str, str]:
    """The models' JSON schemas as texts, since language models read the order of fields, too."""
    return {name: json.dumps(without_forbidding(model.model_json_schema())) for name, model in models.items()}


def without_forbidding(value: Any) -> Any:
    """The schema without its word on other fields, which ours always say."""
    if isinstance(value, list):
        return [without_forbidding(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: inner for key, inner in value.items() if (key, inner) != ("additionalProperties", False)}
    return {key: without_forbidding(inner) for key, inner in kept.items()}


@pytest.mark.parametrize("module", LEGITIMATE, ids=repr)
def test_a_legitimate_module_asks_what_it_says(module: Module, tmp_path: Path) -> None:
    with marker(tmp_path / "mark") as mark:
        ours = load_schema(module.put(tmp_path / SHOWN), SHOWN)
        with imported(module.source) as theirs:
            assert asked_by(ours.models) == asked_by(theirs)

    assert all(model.model_config["extra"] == "forbid" for model in ours.models.values())
    assert ours.output().sha
    assert ours.text()
    assert not mark.exists()


@pytest.mark.parametrize("module", LEGITIMATE, ids=repr)
def test_a_rendering_reads_back_as_what_was_read(module: Module) -> None:
    spec = parse_schema(text_of(module), SHOWN)

    rendering = render_schema(spec)

    assert parse_schema(rendering, SHOWN) == spec
    assert render_schema(parse_schema(rendering, SHOWN)) == rendering


# Without them the refusals would be those of a package that refuses everything.
@pytest.mark.parametrize("module", [module for module in LEGITIMATE if module.name not in ("any_value",)], ids=repr)
def test_a_legitimate_module_is_one_to_python(module: Module) -> None:
    with imported(module.source) as models:
        assert models
        assert all(model.model_json_schema() for model in models.values())


RENDER_ALL = """
import sys
from llmbatch_assets.domain.schema.grammar import parse_schema
from llmbatch_assets.domain.schema.spec import render_schema
from llmbatch_assets.errors import SchemaError
from llmbatch_assets_tests.schema_corpus import LEGITIMATE
for module in LEGITIMATE:
    try:
        print(render_schema(parse_schema(module.source.decode().removeprefix("\\ufeff"), "s.py")))
    except SchemaError:
        print("refused")
"""


def test_a_rendering_is_the_same_bytes_in_every_process() -> None:
    renderings = [
        subprocess.run(
            [sys.executable, "-c", RENDER_ALL],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert renderings[0] == renderings[1]
    assert renderings[0].count(b"class LLMOutput(BaseModel)") > 15


# Awkward modules.


@pytest.mark.parametrize("module", AWKWARD, ids=repr)
def test_an_awkward_module_is_accepted_or_refused_but_does_not_crash(module: Module) -> None:
    found = outcome(module)

    assert not found.acted
    assert found.crash is None
    assert found.took < LONGEST_SEC
    if module.header.first != "either":
        assert module.header.first == ("accepted" if found.refusal is None else "refused"), found.refusal
    # Nothing is muttered about a schema that is accepted.
    assert found.refusal or found.muttered == []


# Modules that nobody wrote.


def verdict(model: type[BaseModel], answer: dict[str, Any]) -> dict[str, Any] | None:
    """What the model makes of an answer; nothing if it does not accept it."""
    try:
        return model.model_validate_json(json.dumps(answer), strict=True).model_dump(mode="json", by_alias=True)
    except ValidationError:
        return None


DRAWN = {"plain": modules(full=False), "full": modules(full=True)}


@pytest.mark.parametrize("kind", DRAWN)
@quick
@given(data=st.data())
def test_a_rendering_accepts_what_the_module_accepts(kind: str, data: st.DataObject) -> None:
    drawn: DrawnModule = data.draw(DRAWN[kind])
    spec = parse_schema(drawn.source, SHOWN)
    rendering = render_schema(spec)
    assert parse_schema(rendering, SHOWN) == spec

    with imported(drawn.source) as theirs, imported(rendering) as ours:
        expected = verdict(theirs["LLMOutput"], drawn.answer)
        assert expected is not None
        assert verdict(ours["LLMOutput"], drawn.answer) == expected
        other = data.draw(spoilt(drawn.answer, JSON))
        # Ours may be stricter, about other fields; what it accepts is right.
        assert verdict(ours["LLMOutput"], other) in (None, verdict(theirs["LLMOutput"], other))
