"""Configuration: unknown keys refused, no coercion, every key described."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from llmbatch_assets.domain.configuration.model_blocks import LOCAL_MODEL, Llm
from llmbatch_assets.domain.configuration.parameters import Parameters, read_parameters
from llmbatch_assets.domain.grouping_modes import GROUPING_MODES
from llmbatch_assets_tests.domain.strategies import ROW_MODES, parameters


def nested(path: str, value: Any) -> dict[str, Any]:
    """``a.b`` and a value as nested mappings."""
    content: dict[str, Any] = reduce(lambda inner, name: {name: inner}, reversed(path.split(".")), value)
    return content


def found(path: str, read: Parameters) -> Any:
    """The value at a path."""
    return reduce(getattr, path.split("."), read)


def blocks(model: type[BaseModel] = Parameters, path: tuple[str, ...] = ()) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every block of the file, by its path."""
    yield ".".join(path), model
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from blocks(field.annotation, (*path, name))


BLOCKS = dict(blocks())

# A key pasted where its variable's name belongs, as providers write their keys.
PASTED_KEYS = [
    "sk-proj-Ab12Cd34Ef56Gh78Ij90Kl12Mn34Op56",
    "sk_live_Ab12Cd34Ef56Gh78Ij90Kl12",
    "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "gsk_Ab12Cd34Ef56Gh78Ij90Kl12Mn34Op56Qr78St90",
    "xai-Ab12Cd34Ef56Gh78Ij90Kl12Mn34Op56",
    "Bearer Ab12Cd34Ef56",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh",
    "r8_Ab12Cd34Ef56Gh78Ij90Kl12Mn34Op56Qr78S",
    "a94f3c0d5e6b4b0d3255bfef95601890",
]


@pytest.mark.parametrize("block", ["llm", "judge"])
@pytest.mark.parametrize("key", PASTED_KEYS)
def test_a_key_is_not_taken_for_the_name_of_its_variable(block: str, key: str) -> None:
    with pytest.raises(ValidationError):
        read_parameters({block: {"api_key_env": key}})


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "GEMINI_API_KEY", "HF_TOKEN", "_KEY2", "MY_KEY", "KEY", ""])
def test_the_name_of_a_variable_is_taken(name: str) -> None:
    assert parameters(llm={"api_key_env": name}).llm.api_key_env == name
    assert parameters(judge={"api_key_env": name}).judge.api_key_env == name


# The keys of files that were written for the system that this one follows.
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("run.name", "nightly"),
        ("run.timezone", "Asia/Tokyo"),
        ("run.log_level", "DEBUG"),
        ("run.run_id", "2026-02-16"),
        ("input.path", "raw_data/other.psv"),
        ("input.format", "psv"),
        ("input.encoding", "cp1252"),
        ("input.required_columns", ["id"]),
        ("grouping.enabled", False),
        ("grouping.column", "Course Code"),
        ("grouping.mode", "group_output"),
        ("grouping.max_rows_per_group", 50),
        ("context.columns.mode", "exclude"),
        ("context.columns.include", ["a"]),
        ("context.columns.exclude", ["b"]),
        ("context.row_template", "Row:\n{__ROW_KV_BLOCK__}"),
        ("context.auto_kv_block", False),
        ("context.kv_order", "alpha"),
        ("context.max_context_chars", 12000),
        ("context.truncate_field_chars", 500),
        ("context.group_header_template", "Group {group_key}: {n_rows}"),
        ("context.group_footer_template", "End of {group_key}"),
        ("prompts.generation.path", "prompts/g.yaml"),
        ("prompts.judge.enabled", True),
        ("prompts.judge.path", "prompts/j.yaml"),
        ("llm_schema.py_path", "schema/s.py"),
        ("llm_schema.txt_path", "schema/s.txt"),
        ("llm_schema.archive_dir", "old"),
        ("llm.model_name", "gemini-3-flash-preview"),
        ("llm.temperature", 1.0),
        ("llm.max_retries", 3),
        ("llm.runner_max_retries", 2),
        ("llm.timeout_sec", 60.0),
        ("llm.max_workers", 10),
        ("llm.silence_client_lv_logs", False),
        ("cache.enabled", False),
        ("cache.force", True),
        ("cache.dir", "elsewhere/cache"),
        ("cache.dump_failures", False),
        ("cache.verbose", 10),
        ("artifacts.dir", "made"),
        ("artifacts.outputs_dir", "made/outputs"),
        ("artifacts.reports_dir", "made/reports"),
        ("outputs.formats", ["psv", "jsonl"]),
        ("outputs.psv_path", "out.psv"),
        ("outputs.jsonl_path", "out.jsonl"),
        ("report.enabled", False),
        ("report.md_path", "r.md"),
        ("report.html_path", "r.html"),
        ("report.write_html", False),
        ("report.sample_per_group", 4),
        ("report.include_full_examples", False),
        ("report.max_reason_examples", 9),
        ("report.count_by", ["Skill"]),
    ],
)
def test_a_key_of_the_earlier_system_loads_and_arrives(path: str, value: Any) -> None:
    arrived = found(path, read_parameters(nested(path, value)))
    assert (list(arrived) if isinstance(value, list) else arrived) == value


@pytest.mark.parametrize(
    ("alias", "path", "value"),
    [
        ("llm_schema.path", "llm_schema.py_path", "schema/s.py"),
        ("cache.artifact_dir", "cache.dir", "elsewhere"),
        ("report.sample_per_role", "report.sample_per_group", 7),
    ],
)
def test_an_older_name_of_a_key_means_the_same(alias: str, path: str, value: Any) -> None:
    assert found(path, read_parameters(nested(alias, value))) == value
    both = read_parameters(nested(path, value))
    assert both == read_parameters(nested(alias, value))


@pytest.mark.parametrize("block", BLOCKS)
def test_every_key_is_described(block: str) -> None:
    undescribed = [name for name, field in BLOCKS[block].model_fields.items() if not field.description]
    assert undescribed == []


@pytest.mark.parametrize("block", BLOCKS)
def test_no_block_takes_a_key_that_it_does_not_know(block: str) -> None:
    path = f"{block}.no_such_key".lstrip(".")
    with pytest.raises(ValidationError) as refused:
        read_parameters(nested(path, 1))
    assert [error["type"] for error in refused.value.errors()] == ["extra_forbidden"]


@pytest.mark.parametrize("block", BLOCKS)
def test_no_value_changes_after_it_was_read(block: str) -> None:
    value = found(block, Parameters()) if block else Parameters()
    name = next(iter(BLOCKS[block].model_fields))
    with pytest.raises(ValidationError):
        setattr(value, name, None)


def test_an_empty_file_and_empty_blocks_mean_the_defaults() -> None:
    assert read_parameters({}) == Parameters()
    assert read_parameters(dict.fromkeys(Parameters.model_fields)) == Parameters()


def test_the_defaults_written_out_mean_the_defaults() -> None:
    assert read_parameters(Parameters().model_dump()) == Parameters()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # Nothing is coerced: a quoted number is a mistake, and a mistake is reported.
        ("llm.max_workers", "8"),
        ("llm.max_workers", 8.5),
        ("llm.max_workers", True),
        ("llm.temperature", "hot"),
        ("cache.enabled", "no"),
        ("run.name", 7),
        ("input.required_columns", "id"),
        # Out of range.
        ("llm.max_workers", 0),
        ("llm.max_retries", 0),
        ("llm.runner_max_retries", 0),
        ("llm.transport_retries", -1),
        ("llm.timeout_sec", 0),
        ("llm.temperature", 2.1),
        ("llm.temperature", -0.1),
        ("llm.top_p", 0),
        ("llm.max_output_tokens", 0),
        ("llm.model_name", ""),
        ("judge.min_score", 101),
        ("judge.min_score", -1),
        ("judge.temperature", 3),
        ("cache.verbose", 11),
        ("grouping.max_rows_per_group", -1),
        ("context.max_context_chars", -1),
        ("context.truncate_field_chars", -1),
        ("report.sample_per_group", -1),
        # Not one of the choices.
        ("llm.provider", "gemini"),
        ("llm.structured_output", "yes"),
        ("input.format", "docx"),
        ("grouping.mode", "rows"),
        ("context.kv_order", "beta"),
        ("outputs.formats", ["pdf"]),
        ("run.log_level", "LOUD"),
        # Unknown time zones and encodings.
        ("run.timezone", "Europe/Atlantis"),
        ("run.timezone", "../etc/passwd"),
        ("input.encoding", "utf-99"),
        # A block must be a block.
        ("llm", "gpt"),
        ("llm", []),
    ],
)
def test_an_impossible_value_is_refused(path: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        read_parameters(nested(path, value))


@pytest.mark.parametrize("mode", ROW_MODES)
def test_the_grouping_in_force_is_one_that_exists(mode: str) -> None:
    assert parameters(grouping=ROW_MODES[mode]).grouping.active_mode.name == mode
    assert mode in GROUPING_MODES


def test_a_column_without_grouping_means_row_wise() -> None:
    read = parameters(grouping={"enabled": False, "column": "team", "mode": "group_output"})
    assert read.grouping.active_mode.name == "row_wise"


def test_choices_that_need_a_column_say_so() -> None:
    with pytest.raises(ValidationError, match=r"grouping\.column must name a column"):
        parameters(grouping={"enabled": True})
    with pytest.raises(ValidationError, match=r"columns\.include must name at least one"):
        parameters(context={"columns": {"mode": "include"}})


def test_the_judge_differs_from_the_generator_only_where_configured() -> None:
    llm = {"model_name": "big", "temperature": 0.9, "base_url": "http://a/v1", "api_key_env": "A_KEY", "seed": 3}
    assert parameters(llm=llm).judge_llm() == parameters(llm=llm).llm
    judged = parameters(llm=llm, judge={"min_score": 70, "model_name": "small", "temperature": 0}).judge_llm()
    assert judged == Llm(**llm | {"model_name": "small", "temperature": 0.0})


def test_a_key_is_not_sent_to_another_server() -> None:
    llm = {"base_url": "http://a/v1", "api_key_env": "A_KEY"}
    elsewhere = parameters(llm=llm, judge={"base_url": "http://b/v1"})
    assert elsewhere.judge_llm().api_key_env == ""
    named = parameters(llm=llm, judge={"base_url": "http://b/v1", "api_key_env": "B_KEY"})
    assert named.judge_llm().api_key_env == "B_KEY"


def test_there_is_no_fallback_to_another_model() -> None:
    assert Parameters().llm.provider == "openai"


@pytest.mark.parametrize("blocks", [{"llm": {"model_name": "gpt-4o-mini"}}, {"judge": {"model_name": "big"}}, {}])
def test_the_embedded_model_is_called_by_its_name_only(blocks: dict[str, dict[str, str]]) -> None:
    local = {"provider": "local", "model_name": LOCAL_MODEL} if "judge" in blocks else {"provider": "local"}
    with pytest.raises(ValidationError, match=rf"must be {LOCAL_MODEL} .*use provider: openai"):
        parameters(**{**blocks, "llm": {**local, **blocks.get("llm", {})}})
    assert parameters(llm={"provider": "local", "model_name": LOCAL_MODEL}).judge_llm().model_name == LOCAL_MODEL


def test_fields_of_a_request_that_only_sound_like_a_secret_are_taken() -> None:
    fields = {"max_tokens": 5, "token_budget": 1, "thinking": {"budget_tokens": 3}, "keys": ["a"]}
    assert Llm(extra_body=fields).extra_body == fields
