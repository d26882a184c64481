"""A response as it was received: its text and its JSON value."""

from typing import Any

import pytest

from llmbatch_assets.adapters.providers.responses.http_response import HttpResponse


@pytest.mark.parametrize(("status", "expected"), [(199, False), (200, True), (204, True), (300, False), (500, False)])
def test_any_2xx_is_a_success(status: int, expected: bool) -> None:
    assert HttpResponse(status, {}, b"").is_success is expected


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b'{"error": "no"}', {"error": "no"}),
        (b"[1]\n", [1]),
        (b"<html>busy</html>\n", "<html>busy</html>"),
        (b"", ""),
        (b"nicht verf\xfcgbar", "nicht verf\ufffdgbar"),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_a_body_that_is_not_json_is_its_text(body: bytes, content: Any) -> None:
    assert HttpResponse(500, {}, body).content == content
