"""Where log lines go: warnings to standard error, what was written to standard output, all of it to a file if asked."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from logging.handlers import RotatingFileHandler
from pathlib import Path

from llmbatch_assets.adapters.files.atomic import artifact_log
from llmbatch_assets.adapters.providers.credentials import read_key
from llmbatch_assets.cli.progress import screen, told
from llmbatch_assets.cli.session import set_up_logging
from llmbatch_assets.domain.parameters import Llm
from llmbatch_assets.errors import ConfigError, RunPermanentError
from llmbatch_assets.stages.project import Batch

LARGEST_LOG_BYTES = 10_000_000
OLD_LOGS = 3
# Shorter ones are placeholders such as none, which are words of other lines, too.
SHORTEST_KEY = 7


class _ConsoleLines(logging.Handler):
    """Prints messages as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        screen().print(record.getMessage())


class _WithoutKeys(logging.Formatter):
    """Writes lines in which ``[key]`` stands in place of each key."""

    def __init__(self, keys: Collection[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._keys = keys

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for key in self._keys:
            line = line.replace(key, "[key]")
        return line


def keep_log(batch: Batch) -> None:
    """Show log lines as ``run.log_level`` says, and write them to ``run.log_file``, too, if there is one.

    Raises ``ConfigError`` where that file cannot be written.
    """
    level, path = batch.parameters.run.log_level, batch.layout.log_file
    set_up_logging(level)
    handlers = [_file_handler(batch, batch.path(path))] if path else []
    for name in ("llmbatch_assets", "openai", "httpx2"):
        _replace_handlers(logging.getLogger(name), handlers)
    for logger, shown_by in ((told, []), (artifact_log, [_ConsoleLines()])):
        # Standard error is for what is wrong.
        logger.propagate = False
        _replace_handlers(logger, [*handlers, *shown_by])


def _replace_handlers(logger: logging.Logger, handlers: list[logging.Handler]) -> None:
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    for handler in handlers:
        logger.addHandler(handler)


def _file_handler(batch: Batch, path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(path, maxBytes=LARGEST_LOG_BYTES, backupCount=OLD_LOGS, encoding="utf-8")
    except OSError as refused:
        raise ConfigError(f"run.log_file is {path}, which cannot be written: {refused.strerror}") from refused
    handler.setFormatter(_WithoutKeys(_keys(batch)))
    return handler


def _keys(batch: Batch) -> set[str]:
    """The keys that calls of this batch may use, where they are set."""
    parameters = batch.parameters
    named = {_key_name(llm) for llm in (parameters.llm, parameters.judge_llm())}
    found = {os.environ.get(name, "") for name in named}
    for name in named - {""}:
        try:
            found.add(read_key(name, batch.root))
        except RunPermanentError:
            continue
    return {key for key in found if len(key) > SHORTEST_KEY}


def _key_name(llm: Llm) -> str:
    return llm.key_name if llm.provider == "openai" else ""
