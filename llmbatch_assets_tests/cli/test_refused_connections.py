"""A server of one's own that refuses every call is named with the remedy: for its certificate, or for its key."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llmbatch_assets_tests.chat_server import ChatServer, status
from llmbatch_assets_tests.project import Project, make_project, settings

# A certificate for 127.0.0.1 that signs itself, and its key. Valid until 2126.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBkTCCATagAwIBAgIULJC3qjbt62REdlJI7TjHQo7h0zkwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyODEwMTQzOVoYDzIxMjYxMTA0
MTAxNDM5WjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATZ2B4BjFnSNVSPOiDgz0b0JPkA4Df2+l+G+8h+EvnylgdH4mDhPwrr
SGlYpRQEanWrVwL1ui8RAm6q94kqdIkXo2QwYjAdBgNVHQ4EFgQUb88yX7vm9Xuh
q5VthvSWZqRihUowHwYDVR0jBBgwFoAUb88yX7vm9Xuhq5VthvSWZqRihUowDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0kAMEYC
IQC72NcvOw4RqH2o1QBUgewTqcnS9G9mCL+qe5ZNhV3Y3wIhALGnYPiPF6XnLF1s
WJYAeh6qN3/jvHcYVEU8WvZcETSI
-----END CERTIFICATE-----
"""
PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgDgP8AzkXZvu2dMfh
dD4+qEDy6rFUi1Uwpt1wAyz7ohKhRANCAATZ2B4BjFnSNVSPOiDgz0b0JPkA4Df2
+l+G+8h+EvnylgdH4mDhPwrrSGlYpRQEanWrVwL1ui8RAm6q94kqdIkX
-----END PRIVATE KEY-----
"""
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "model": "test-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "OK"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE)
    return path


@pytest.fixture
def address(tmp_path: Path, certificate: Path) -> Iterator[str]:
    """A server with a certificate that nobody else has signed."""
    key = tmp_path / "key.pem"
    key.write_text(PRIVATE_KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # refused handshakes
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_certificate_that_is_not_trusted_is_reported_with_the_setting(
    tmp_path: Path, address: str, certificate: Path
) -> None:
    project = make_project(tmp_path / "project", address)
    refused = project.llmbatch_here("check", "--ping")
    assert refused.returncode == 2
    assert (
        f"ping: test-model at {address} does not answer: the certificate of {address} is not trusted (self-signed "
        "certificate); for a server of your own, set the environment variable SSL_CERT_FILE to a PEM file with its "
        "certificate or that of its authority (CA)"
    ) in refused.stdout
    trusted = project.llmbatch_here("check", "--ping", SSL_CERT_FILE=str(certificate))
    assert trusted.returncode == 0, trusted.stdout
    assert f"ping: test-model at {address} answers" in trusted.stdout
    nowhere = project.llmbatch_here("check", "--ping", SSL_CERT_FILE=str(tmp_path / "none.pem"))
    assert nowhere.returncode == 2
    assert f"SSL_CERT_FILE names {tmp_path}/none.pem, which has no certificates in PEM format" in nowhere.stdout


def test_a_key_that_is_refused_is_named_by_its_variable(project: Project, server: ChatServer) -> None:
    server.script(lambda call: True, status(401))
    ended = project.llmbatch_here("check", "--ping")
    assert ended.returncode == 2
    assert "the key is in the environment variable TEST_KEY" in ended.stdout
    assert "secret-key" not in ended.stdout


def test_a_server_that_needs_a_key_is_reported_with_the_setting(
    project_with: Callable[..., Project], server: ChatServer
) -> None:
    project = project_with()
    project.parameters(
        **settings(server.base_url, llm={"provider": "openai", "base_url": server.base_url, "api_key_env": ""})
    )
    server.script(lambda call: True, status(401))
    ended = project.llmbatch_here("run")
    assert ended.returncode == 1
    told = ended.stdout + ended.stderr
    assert "no key was sent; if the server needs one, put it in an environment variable and set llm.api_key_env" in told
