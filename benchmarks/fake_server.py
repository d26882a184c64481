"""A chat-completions server that is fast enough not to be the limit: one process, no framework.

    python -m benchmarks.fake_server [--delay SECONDS]      prints its port and serves until its input ends

Each call is answered after the delay with the same small object, or with a PASS where it asks for a verdict. Any GET
request is answered with the number of calls so far.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

ANSWER = {"answer": "It is as tall as it has to be.", "certain": True}
VERDICT = {"reasons": ["It answers the question."], "score": 90, "verdict": "PASS"}
# Curator asks for a made-up user to find out whether a server supports JSON schemas.
USER = {"name": "Jason", "age": 25}
USAGE = {"prompt_tokens": 200, "completion_tokens": 20, "total_tokens": 220}
_LENGTH = b"\r\ncontent-length:"


def response(said: dict[str, object]) -> bytes:
    """A whole HTTP response with a completion that says so."""
    choice = {"index": 0, "message": {"role": "assistant", "content": json.dumps(said)}, "finish_reason": "stop"}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "test-model", "usage": USAGE}
    body = json.dumps({**whole, "choices": [choice]}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def number_response(number: int) -> bytes:
    """A whole HTTP response that says a number."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d" % (len(str(number)), number)


class Connection(asyncio.Protocol):
    """One kept-alive connection; a client has one call at a time on it."""

    calls = 0

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._unread = b""
        self._answer, self._verdict, self._user = response(ANSWER), response(VERDICT), response(USER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head_ends = self._unread.find(b"\r\n\r\n")
        if head_ends < 0:
            return
        head = self._unread[: head_ends + 2].lower()
        _, _, after = head.partition(_LENGTH)
        ends = head_ends + 4 + int(after.split(b"\r\n", 1)[0] or 0)
        if len(self._unread) < ends:
            return
        if head.startswith(b"get "):
            self._unread = self._unread[ends:]
            self._write(number_response(Connection.calls))
            return
        Connection.calls += 1
        told = self._reply(self._unread[:ends])
        self._unread = self._unread[ends:]
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._write, told)
        else:
            self._write(told)

    def _reply(self, request: bytes) -> bytes:
        if b"JudgeResult" in request:
            return self._verdict
        return self._user if b'"name":"User"' in request else self._answer

    def _write(self, told: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(told)


async def serve(delay: float) -> None:
    """Print the port and serve until standard input ends."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(delay), "127.0.0.1", 0, backlog=2048)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextmanager
def serving(delay: float) -> Iterator[int]:
    """The port of a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.fake_server", "--delay", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.communicate()


def calls_made(port: int) -> int:
    """The number of calls that the server has received."""
    with urlopen(f"http://127.0.0.1:{port}/calls") as answer:
        return int(answer.read())


class _Caller(asyncio.Protocol):
    """Sends the next call as soon as an answer is there."""

    def __init__(self, call: bytes) -> None:
        self.answered = 0
        self._call = call
        self._size = len(response(ANSWER))
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._call)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received == self._size:
            self._received = 0
            self.answered += 1
            self._transport.write(self._call)


async def ceiling(port: int, connections: int = 64, seconds: float = 2.0, body_bytes: int = 1500) -> float:
    """Calls a second that the server answers to a client that does nothing else."""
    body = b'{"messages": "' + b"x" * body_bytes + b'"}'
    call = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: _Caller(call), "127.0.0.1", port) for _ in range(connections)]
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    answered = sum(caller.answered for _, caller in made)
    elapsed = time.perf_counter() - started
    for transport, _ in made:
        transport.abort()
    return answered / elapsed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0)
    asyncio.run(serve(parser.parse_args().delay))
