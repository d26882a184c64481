"""Broken or foreign files never count as accepted, and nothing that was paid for is overwritten."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch_assets.adapters.files.atomic import write_json
from llmbatch_assets.adapters.store.index import CacheFolders, CacheIndex
from llmbatch_assets.adapters.store.outputs import FileStore, quarantine
from llmbatch_assets.domain.item_state import OutputContract
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt, UnjudgedAnswer
from llmbatch_assets.domain.usage import TokenUsage
from llmbatch_assets.errors import AnswerError, FailureCause, RunPermanentError
from llmbatch_assets_tests.adapters.values import IDENTITY, accepted, cache_id, failed

ID = cache_id()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return store_in(tmp_path)


def store_in(folder: Path, contract: OutputContract | None = None, *, keep_failures: bool = True) -> FileStore:
    folders = CacheFolders(*(folder / name for name in ("llm_outputs", "llm_failures", "forced", "awaiting_judge")))
    opener = (lambda: contract) if contract else None
    return FileStore(CacheIndex(folders, opener, on_broken=quarantine), keep_failures)


def save(store: FileStore, *outcomes: AcceptedOutput | FailedAttempt) -> None:
    async def all_of_them() -> None:
        for outcome in outcomes:
            if isinstance(outcome, AcceptedOutput):
                await store.save_accepted(outcome)
            else:
                await store.save_failure(outcome)

    asyncio.run(all_of_them())


def damage(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


# Accepted outputs, broken and foreign ones.


def test_an_accepted_output_comes_back_as_it_went(store: FileStore) -> None:
    output = accepted(parsed={"answer": "né\n表", "certain": False}, judge={"verdict": "PASS", "score": 90})
    save(store, output)
    assert store.index.output(ID) == output
    assert store.index.state(ID) == "accepted"
    assert store.index.output_path(ID).name == f"{ID}.json"


def test_what_was_never_made_is_missing_and_no_word_is_said(store: FileStore, caplog: pytest.LogCaptureFixture) -> None:
    assert (store.index.output(ID), store.index.last_failure(ID), store.index.state(ID)) == (None, None, "missing")
    assert caplog.records == []


@pytest.mark.parametrize(
    "content",
    [
        # Empty, cut, not UTF-8, not JSON, not an output.
        b"",
        b'{"meta": {"cache_id": ',
        b"\xff\xfe\x00",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"meta": {}, "parsed": [], "judge": null, "usage": {}, "latency_sec": 0}',
        pytest.param(b'{"meta": ' + b"[" * 100_000, id="deep"),
    ],
)
def test_a_broken_output_is_set_aside_told_and_made_again(
    store: FileStore, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = store.index.output_path(ID)
    path.parent.mkdir()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert store.index.output(ID) is None
    [told] = [record.getMessage() for record in caplog.records]
    assert str(path) in told
    assert "set aside" in told
    assert [aside.read_bytes() for aside in path.parent.iterdir()] == [content]
    assert store.index.state(ID) == "missing"
    save(store, accepted())
    assert store.index.state(ID) == "accepted"


def test_the_output_of_another_question_is_set_aside(store: FileStore) -> None:
    save(store, accepted(1))
    store.index.output_path(cache_id(1)).rename(store.index.output_path(ID))
    assert store.index.output(ID) is None
    assert list(store.index.folders.outputs.glob("*.json")) == []


@pytest.mark.parametrize(
    "change",
    [
        # Its parts hash to another id.
        lambda content: content["meta"]["identity"].update(model_name="another"),
        # What exports, reports and Dagster read of it has gone.
        lambda content: content["meta"].pop("attempt_outer"),
        lambda content: content["meta"].update(attempt_outer="1"),
        lambda content: content["meta"].pop("model"),
        lambda content: content["meta"].pop("identity"),
        # What no canonical form has.
        lambda content: content["meta"]["identity"].update(model_name=float("nan")),
        lambda content: content["meta"].update(identity={"self": 1, "\ud800": 2}),
    ],
)
def test_an_output_whose_parts_do_not_agree_is_set_aside(
    store: FileStore, change: Callable[[dict[str, Any]], object]
) -> None:
    save(store, accepted())
    damage(store.index.output_path(ID), change)
    assert store.index.output(ID) is None


class NoList:
    """A contract that rejects an answer that is a list."""

    sha = IDENTITY.schema_sha

    def validate(self, answer: dict[str, Any]) -> None:
        if isinstance(answer.get("answer"), list):
            raise AnswerError(FailureCause.SCHEMA_MISMATCH, "a list")


def test_an_output_that_was_edited_into_something_else_is_set_aside_and_one_that_was_corrected_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_in(tmp_path, contract=NoList())
    save(store, accepted())
    damage(store.index.output_path(ID), lambda content: content["parsed"].update(answer="corrected"))
    output = store.index.output(ID)
    assert output is not None
    assert output.parsed["answer"] == "corrected"
    damage(store.index.output_path(ID), lambda content: content["parsed"].update(answer=[]))
    assert store.index.output(ID) is None
    assert "no longer matches the schema" in caplog.text


def test_an_output_that_nobody_edited_is_never_checked_again(tmp_path: Path) -> None:
    store = store_in(tmp_path, contract=NoList())
    save(store, accepted(parsed={"answer": []}))
    assert store.index.output(ID) is not None


@pytest.mark.parametrize("change", [{"cache_id": cache_id(1)}, {"parsed": []}])
def test_an_answer_that_waits_for_its_judge_must_be_the_items_and_whole(
    tmp_path: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    store = store_in(tmp_path)
    answer = UnjudgedAnswer(cache_id=ID, attempt=1, parsed={}, raw_text="{}", usage=TokenUsage(), latency_sec=0.0)
    asyncio.run(store.save_awaiting(answer))
    assert store.awaiting(ID) == answer
    damage(tmp_path / f"awaiting_judge/{ID}.json", lambda content: content.update(change))
    assert store.awaiting(ID) is None
    assert "set aside" in caplog.text


@pytest.mark.parametrize("folder", ["llm_outputs", "llm_failures", "awaiting_judge"])
def test_a_folder_in_which_nothing_can_be_written_is_told(tmp_path: Path, folder: str) -> None:
    store = store_in(tmp_path)
    store.check_room()
    assert [path.name for path in tmp_path.iterdir()] == ["llm_outputs"]
    store.index.folders.outputs.rmdir()
    (tmp_path / folder).write_text("a file")
    with pytest.raises(RunPermanentError, match=rf"{folder} cannot be written to .*no call was made") as caught:
        store.check_room()
    assert caught.value.cause == "disk"


def test_what_was_set_aside_before_is_kept(store: FileStore) -> None:
    store.index.folders.outputs.mkdir()
    for content in (b"first", b"second"):
        store.index.output_path(ID).write_bytes(content)
        assert store.index.output(ID) is None
    assert sorted(path.read_bytes() for path in store.index.folders.outputs.iterdir()) == [b"first", b"second"]


def test_a_leftover_of_a_dead_process_is_no_output(store: FileStore) -> None:
    store.index.folders.outputs.mkdir()
    (store.index.folders.outputs / f".{ID}.json.0a1b2c3d.tmp").write_bytes(b"{")
    assert store.index.state(ID) == "missing"


# Failed attempts.


def test_failures_are_numbered_on_and_none_is_overwritten(tmp_path: Path) -> None:
    for run in range(3):
        store = store_in(tmp_path)
        number = store.next_attempt(ID)
        assert number == 2 * run + 1
        save(store, failed(attempt=number), failed(attempt=number + 1, message=f"run {run}"))
    assert sorted(path.name for path in store.index.folders.failures.iterdir()) == [
        f"{ID}__a{number}.json" for number in range(1, 7)
    ]
    last = store.index.last_failure(ID)
    assert last is not None
    assert (last.meta["attempt_outer"], last.error["message"]) == (6, "run 2")


def test_numbers_above_nine_are_numbers(store: FileStore) -> None:
    save(store, *(failed(attempt=number) for number in range(1, 12)))
    last = store.index.last_failure(ID)
    assert store.next_attempt(ID) == 12
    assert last is not None
    assert last.meta["attempt_outer"] == 11


def test_failures_of_one_question_are_not_those_of_another(store: FileStore) -> None:
    save(store, failed(1))
    assert (store.next_attempt(cache_id(1)), store.next_attempt(ID), store.index.state(ID)) == (2, 1, "missing")


@pytest.mark.parametrize(
    ("failure_class", "state"),
    [
        ("answer", "failed"),
        ("transient", "failed"),
        ("item_permanent", "failed_permanently"),
    ],
)
def test_the_last_failure_says_how_the_question_stands(store: FileStore, failure_class: str, state: str) -> None:
    save(store, failed(attempt=1, failure_class="item_permanent"), failed(attempt=2, failure_class=failure_class))
    assert store.index.state(ID) == state


def test_an_output_outweighs_earlier_and_later_failures(store: FileStore) -> None:
    save(store, failed(attempt=1), accepted(), failed(attempt=2, failure_class="item_permanent"))
    assert store.index.state(ID) == "accepted"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"class": "new kind"}'])
def test_an_unreadable_failure_still_is_one(store: FileStore, tmp_path: Path, content: bytes) -> None:
    save(store, failed(attempt=1))
    store.index.failure_path(ID, 2).write_bytes(content)
    later = store_in(tmp_path)
    assert (later.index.state(ID), later.next_attempt(ID)) == ("failed", 3)


def test_a_failure_without_its_first_number_still_is_one(store: FileStore, tmp_path: Path) -> None:
    # Somebody deleted the oldest file.
    save(store, failed(attempt=1), failed(attempt=2))
    store.index.failure_path(ID, 1).unlink()
    later = store_in(tmp_path)
    assert (later.index.state(ID), later.next_attempt(ID)) == ("failed", 3)


def test_failures_are_not_kept_where_that_is_switched_off(tmp_path: Path) -> None:
    store = store_in(tmp_path, keep_failures=False)
    save(store, failed())
    assert not store.index.folders.failures.exists()
    assert store.next_attempt(ID) == 1


# Forced regeneration.


def test_a_mark_goes_with_the_output_that_replaces_the_old_one_and_no_sooner(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    save(store, accepted(0), accepted(1))
    store.force([ID, cache_id(1)])
    save(store, failed(0))
    again = store_in(tmp_path)
    assert again.is_forced(ID)
    assert again.index.state(ID) == "accepted"
    save(again, accepted(0, parsed={"answer": "new", "certain": True}))
    assert (again.is_forced(ID), again.is_forced(cache_id(1))) == (False, True)
    output = again.index.output(ID)
    assert output is not None
    assert output.parsed["answer"] == "new"


def test_marking_twice_or_nothing_is_no_fault(store: FileStore) -> None:
    store.force([])
    store.force([ID])
    store.force([ID])
    assert store.is_forced(ID)
    assert not store.is_forced(cache_id(1))


def test_integers_beyond_64_bits_are_kept(store: FileStore) -> None:
    save(store, accepted(parsed={"answer": 2**80}))
    output = store.index.output(ID)
    assert output is not None
    assert output.parsed == {"answer": 2**80}


def test_a_failure_file_names_its_class_as_the_field_is_called(store: FileStore) -> None:
    save(store, failed(failure_class="transient"))
    content = json.loads(store.index.failure_path(ID, 1).read_bytes())
    assert (content["class"], content["error"]) == ("transient", {"message": "no", "type": "AnswerError"})
    write_json(store.index.failure_path(ID, 2), content)
    assert store.index.last_failure(ID) == failed(failure_class="transient")
