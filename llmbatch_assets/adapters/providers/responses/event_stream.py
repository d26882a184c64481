"""Read answers that arrive as a stream of events instead of one body."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

_DONE = "[DONE]"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


def is_event_stream(content: bytes) -> bool:
    """Return whether a body consists of server-sent events."""
    return content.lstrip(b"\xef\xbb\xbf \r\n").startswith(_FIELDS)


class JoinedEvents(NamedTuple):
    """The chat completion that the events of a stream make up.

    ``ended`` is false if the stream broke off: it has neither an end marker nor a finish reason nor an error.
    """

    body: dict[str, Any]
    ended: bool


def joined_events(content: bytes) -> JoinedEvents:
    """Join the events of a stream. Raises ``ValueError`` or ``RecursionError`` for events that are not JSON."""
    answer = _Answer()
    for data in _data(content.decode("utf-8-sig")):
        if data == _DONE:
            answer.ended = True
            break
        answer.add(json.loads(data))
    return JoinedEvents(answer.body(), answer.ended)


def _data(text: str) -> Iterator[str]:
    """Yield the data of each event. An event may have several lines of data, and ends with an empty line."""
    lines: list[str] = []
    for line in [*text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), ""]:
        if line.startswith("data:"):
            lines.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and lines:
            yield "\n".join(lines)
            lines.clear()


class _Answer:
    """The first choice of a streamed answer so far."""

    def __init__(self) -> None:
        self.ended = False
        self._fields: dict[str, Any] = {}
        self._message: dict[str, list[Any]] = {}
        self._choice: dict[str, Any] = {}
        self._has_choices = False

    def add(self, event: Any) -> None:
        if not isinstance(event, dict):
            return
        # The last events have the usage; any event can have an error.
        self._fields |= {name: value for name, value in event.items() if name != "choices" and value is not None}
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            # Azure's first event has no choices. We request only one choice.
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                self._add_choice(choice)
        self.ended = self.ended or bool(event.get("error") or self._choice.get("finish_reason"))

    def _add_choice(self, choice: dict[str, Any]) -> None:
        self._has_choices = True
        self._choice |= {name: value for name, value in choice.items() if name not in ("delta", "message") and value}
        # Some servers send the whole message as one event, or once more at the end.
        part = choice.get("delta") or (None if self._message else choice.get("message"))
        given = part if isinstance(part, dict) else {}
        for name in _TEXTS:
            if given.get(name):
                self._message.setdefault(name, []).append(given[name])

    def body(self) -> dict[str, Any]:
        if not self._has_choices:
            return self._fields
        message = {name: _joined(parts) for name, parts in self._message.items()}
        return self._fields | {"choices": [self._choice | {"message": message}]}


def _joined(parts: list[Any]) -> Any:
    """Return the parts as one text, or as one list if any of them is a list of parts."""
    if all(isinstance(part, str) for part in parts):
        return "".join(parts)
    lists = (part if isinstance(part, list) else [{"type": "text", "text": part}] for part in parts)
    return [one for part in lists for one in part]
