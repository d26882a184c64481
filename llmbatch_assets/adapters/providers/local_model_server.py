"""The embedded model's server process, which runs until its standard input is closed.

It prints one line of JSON, ``{"port": ...}``, once it listens. Everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import TextIO


def take_stdout() -> TextIO:
    """Return standard output, and redirect what the native library prints there to standard error.

    Nobody reads the pipe after our one line, so the library would block once the pipe is full.
    """
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return stdout


def thread_count() -> int:
    """Return one thread per processor, at most four: a model of this size does not gain from more."""
    return max(1, min(4, os.cpu_count() or 1))


def start_server(model: str, cache_ram_mib: int) -> tuple[object, int]:
    """Load the model and listen on a free port of 127.0.0.1. The server runs while the returned object exists.

    ``cache_ram_mib`` limits the memory for cached prefixes of earlier prompts, in MiB.
    """
    import xllamacpp  # type: ignore[import-untyped]  # the wheel ships no types

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = 1  # the prefix cache is per slot
    params.n_ctx = 8192  # the context length that SmolLM2 was trained with
    params.cache_ram_mib = cache_ram_mib
    params.cors_origins = "http://127.0.0.1"  # the default, "*", would let any web page use the server
    params.endpoint_slots = False  # it would show the prompts of all clients
    params.ui = False
    params.warmup = True
    params.verbosity = 1  # errors
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = thread_count()
        # Threads that busy-wait for each other take 25 times as long beside another busy process.
        threads.poll = 0
    server = xllamacpp.Server(params)
    return server, int(server.listening_address.rstrip("/").rpartition(":")[2])


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="path of the GGUF file")
    parser.add_argument("--cache-ram-mib", type=int, default=512, help="llama.cpp's own default is 8192")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    ready = take_stdout()
    _server, port = start_server(options.model, options.cache_ram_mib)
    print(json.dumps({"port": port}), file=ready, flush=True)
    sys.stdin.buffer.read()
    # A normal exit would destroy `_server`, which can wait for its threads forever.
    os._exit(0)


if __name__ == "__main__":
    main()
