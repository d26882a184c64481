"""Every way in which an editor, a spreadsheet or a slip breaks a YAML file ends in one message."""

from pathlib import Path

import pytest

from llmbatch_assets.adapters.files.yaml_files import load_parameters, load_prompt, load_valid_parameters, read_text
from llmbatch_assets.errors import ConfigError, LlmBatchError, PromptError, SchemaError, TableError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "parameters.yaml"


def refused(config: Path, content: str | bytes) -> str:
    """The message about a configuration file with this content."""
    config.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as refusal:
        load_parameters(config)
    assert str(config) in str(refusal.value)
    return str(refusal.value)


def test_a_key_written_twice_is_refused_with_its_line(config: Path) -> None:
    assert "line 4: the key 'llm' is written twice" in refused(config, "llm:\n  seed: 1\nrun: {}\nllm:\n  seed: 2\n")


def test_a_nested_key_written_twice_is_refused_with_its_line(config: Path) -> None:
    assert "line 3: the key 'seed' is written twice" in refused(config, "llm:\n  seed: 1\n  seed: 2\n")


def test_a_key_written_twice_deep_in_a_free_mapping_is_refused(config: Path) -> None:
    assert "'a' is written twice" in refused(config, "llm:\n  extra_body:\n    x: [{a: 1, a: 2}]\n")


def test_byte_order_marks_and_lookalike_spaces_are_read_as_meant(config: Path) -> None:
    config.write_bytes("\ufeffllm:\n\u00a0\u00a0model_name:\u00a0m-1\n\u202f\u202fseed:\u202f7\u200b\n".encode())
    llm = load_parameters(config).llm
    assert (llm.model_name, llm.seed) == ("m-1", 7)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "shift_jis"])
def test_the_error_for_a_file_that_is_not_utf8_asks_for_utf8(config: Path, encoding: str) -> None:
    assert "not UTF-8 at byte" in refused(
        config, "run: {name: 'naïve 表'}".replace("表" if encoding == "cp1252" else "ï", "").encode(encoding)
    )


@pytest.mark.parametrize(
    ("content", "found"), [("- llm\n- run\n", "list"), ("llm", "str"), ("3", "int"), ("2026-01-15", "date")]
)
def test_what_is_no_mapping_is_refused(config: Path, content: str, found: str) -> None:
    assert f"must be a mapping of keys to values, found {found}" in refused(config, content)


@pytest.mark.parametrize(
    "content", ["", "\n\n", "# nothing but a comment\n", "---\n", "\ufeff", "llm:\nrun:\n  # name: x\n"]
)
def test_a_file_of_nothing_is_all_defaults(config: Path, content: str) -> None:
    config.write_text(content, encoding="utf-8")
    assert load_parameters(config).llm.provider == "openai"


@pytest.mark.parametrize(
    "content",
    [
        # Not YAML.
        "llm: [1, 2",
        "llm:\n\tseed: 1\n",
        "llm: 'open",
        "run: {name: \x01}",
        "run: {}\n---\nrun: {}\n",
        # Code.
        "run: !!python/object/apply:os.system [id]\n",
        # Keys that are no names.
        "run: {[a]: 1}\n",
        "run: {? {a: 1} : 1}\n",
        "run: {2026-01-01: x}\n",
        # Values that YAML makes something else of.
        "run: {name: 2026-02-30}\n",
        "llm: {extra_body: &a {again: *a}}\n",
        "llm: {extra_body: {a: .nan}}\n",
        # Deeper than a parser goes.
        pytest.param("run: " + "[" * 1_200, id="deep"),
    ],
)
def test_what_is_not_yaml_for_us_is_one_message(config: Path, content: str) -> None:
    assert "Traceback" not in refused(config, content)


def test_all_mistakes_are_reported_at_once_each_with_its_path(config: Path) -> None:
    told = refused(
        config, "llm:\n  sed: 1\n  temperature: hot\ninput: 3\ngrouping: {enabled: yes please}\n"
    ).splitlines()
    assert len(told) == 4
    assert all(line.startswith(f"{config}: ") for line in told)
    assert [line.removeprefix(f"{config}: ").split(":")[0] for line in told] == [
        "input",
        "grouping.enabled",
        "llm.temperature",
        "llm.sed",
    ]
    assert "did you mean seed" in told[3]


def test_merge_keys_do_what_yaml_says(config: Path) -> None:
    config.write_text("llm:\n  <<: {seed: 1, max_retries: 2}\n  seed: 7\n")
    llm = load_parameters(config).llm
    assert (llm.seed, llm.max_retries) == (7, 2)


def test_a_missing_file_is_named(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"parameters\.yaml does not exist$"):
        load_parameters(config)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        load_parameters(tmp_path)


# Prompts.


def test_a_prompt_file_is_shown_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("name: answer\nversion: 2\nsystem: Be brief.\nuser: |\n  {context}\n")
    prompt = load_prompt(tmp_path / "p.yaml", "prompts/p.yaml")
    assert (prompt.path, prompt.name, prompt.user) == ("prompts/p.yaml", "answer", "{context}\n")


def test_comments_and_indentation_are_no_part_of_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("system: Be brief.\nuser: '{context}'\n")
    (tmp_path / "b.yaml").write_text('# a comment\nuser:    "{context}"   # another\n\nsystem: >-\n  Be\n  brief.\n')
    assert load_prompt(tmp_path / "a.yaml", "a").sha == load_prompt(tmp_path / "b.yaml", "b").sha


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("system: x\n", "user"),
        ("user: ''\n", "user"),
        ("user: [a]\n", "user"),
        ("user: a\nusr: b\n", "usr"),
        ("user: a\nuser: b\n", "'user' is written twice"),
        ("user: a\nexamples: [{user: q}]\n", r"examples\.0\.assistant"),
        ("- user\n", "must be a mapping"),
        ("user: 'open\n", "not valid YAML"),
    ],
)
def test_a_wrong_prompt_is_reported_with_its_path(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(content)
    with pytest.raises(PromptError, match=told) as refusal:
        load_prompt(path, "prompts/p.yaml")
    assert str(refusal.value).startswith(str(path))


def test_the_known_keys_of_a_prompt_are_offered(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("user: a\nprompt: b\n")
    with pytest.raises(
        PromptError, match="known keys: name, version, purpose, system, user, assistant_prefix, examples"
    ):
        load_prompt(tmp_path / "p.yaml", "p")


# Texts.


@pytest.mark.parametrize("error", [ConfigError, PromptError, SchemaError, TableError])
def test_texts_fail_as_their_reader_asks(tmp_path: Path, error: type[ConfigError]) -> None:
    (tmp_path / "t").write_bytes(b"abc\xff")
    with pytest.raises(error, match="not UTF-8 at byte 3; save the file as UTF-8") as refusal:
        read_text(tmp_path / "t", error)
    assert isinstance(refusal.value, LlmBatchError)


# Environment variables.


def test_a_variable_is_read_when_the_file_is_loaded(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("llm: {model_name: {env: THE_MODEL}, max_workers: {env: WORKERS}}")
    monkeypatch.setenv("THE_MODEL", "m-1")
    monkeypatch.setenv("WORKERS", "3")
    assert (load_parameters(config).llm.model_name, load_parameters(config).llm.max_workers) == ("m-1", 3)
    monkeypatch.setenv("THE_MODEL", "m-2")
    assert load_parameters(config).llm.model_name == "m-2"


def test_missing_variables_are_reported_with_the_other_mistakes(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THE_MODEL", raising=False)
    message = refused(config, "llm: {model_name: {env: THE_MODEL}, temprature: 1}\ninput: {sheet: {env: SHEET_NAME}}\n")
    lines = message.splitlines()
    assert len(lines) == 3
    assert "llm.model_name: the environment variable THE_MODEL is not set" in lines[0]
    assert "input.sheet: the environment variable SHEET_NAME is not set" in lines[1]
    assert "did you mean temperature" in lines[2]
    # llmbatch check goes on with the rest of the file.
    assert load_valid_parameters(config).llm.model_name == "gpt-4o-mini"


def test_the_value_of_a_variable_is_not_shown(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "sk-secret")
    message = refused(config, "llm: {max_workers: {env: WORKERS}}")
    assert "llm.max_workers: must be a whole number (from the environment variable WORKERS)" in message
    assert "sk-secret" not in message


def test_an_api_key_in_place_of_its_name_is_not_shown(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    message = refused(config, "llm: {api_key_env: {env: OPENAI_API_KEY}}")
    assert "must be the NAME of an environment variable" in message
    assert "sk-secret" not in message
