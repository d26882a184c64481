"""Keys are found where they are meant to be, and are in no message."""

from pathlib import Path

import pytest

from llmbatch_assets.adapters.providers.credentials import NO_KEY, read_key
from llmbatch_assets.errors import RunPermanentError

NAME = "LLMBATCH_TEST_SECRET"


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials.yaml").write_text(f"{NAME}: from-file\n")
    assert read_key(NAME, tmp_path) == "from-file"
    monkeypatch.setenv(NAME, "from-environment")
    assert read_key(NAME, tmp_path) == "from-environment"


def test_the_key_is_read_anew_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "old")
    assert read_key(NAME, tmp_path) == "old"
    monkeypatch.setenv(NAME, "new")
    assert read_key(NAME, tmp_path) == "new"


def test_a_key_may_stand_in_a_block_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "credentials.yaml").write_text(f"openai:\n  other: 1\nproviders:\n  gemini:\n    {NAME}: deep\n")
    assert read_key(NAME, tmp_path) == "deep"


def test_no_name_is_no_key(tmp_path: Path) -> None:
    assert read_key("", tmp_path) == NO_KEY


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "- a\n",
        "OTHER: secret-of-another\n",
        f"{NAME}: ''\n",
        f"{NAME}: 12345\n",
        f"{NAME}: null\n",
        "a: [secret-of-another\n",
        "a: 2026-02-30 secret-of-another\n",
    ],
)
def test_a_key_that_is_nowhere_is_asked_for_by_name(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "credentials.yaml").write_text(content)
    with pytest.raises(RunPermanentError, match=f"{NAME} is not set") as refusal:
        read_key(NAME, tmp_path)
    assert refusal.value.cause == "no_key"
    assert "secret" not in str(refusal.value)


def test_a_file_in_another_encoding_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "credentials.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(RunPermanentError):
        read_key(NAME, tmp_path)


def test_an_empty_variable_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "")
    with pytest.raises(RunPermanentError):
        read_key(NAME, tmp_path)
