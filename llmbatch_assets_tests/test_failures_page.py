"""``docs/failures.md``: every cause that the code can name stands there, no other one does, and what it says is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import llmbatch_assets
from llmbatch_assets.adapters.providers.responses.http_response import HttpResponse
from llmbatch_assets.adapters.providers.responses.refusals import error_of_status
from llmbatch_assets.adapters.providers.responses.stop_words import STOPPING_CODES, STOPPING_STATUSES
from llmbatch_assets.errors import (
    FailureCause,
    ItemPermanentError,
    ProviderError,
    RunPermanentError,
    StopCause,
    TransientError,
)

PACKAGE = Path(llmbatch_assets.__file__).parent
PAGE = PACKAGE.with_name("docs") / "failures.md"
OUTCOMES = {"retried": TransientError, "permanently failed": ItemPermanentError, "the run stops": RunPermanentError}


def section(heading: str) -> str:
    return PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a page's tables, without headings."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row, after in zip(cells, [*cells[1:], [""]], strict=True) if set(row[0]) != {"-"} != set(after[0])]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# No item ends with the first: the call is repeated without structured output. The second has its own section.
OTHER = {FailureCause.STRUCTURED_OUTPUT, StopCause.INTERRUPTED}


def test_every_cause_is_explained_and_no_other_one() -> None:
    told = [
        code for part in ("By cause", "Damaged failure files") for row in rows(section(part)) for code in codes(row[0])
    ]
    assert sorted(told) == sorted({*FailureCause, *StopCause} - OTHER)


def fault(status: int, code: str | None) -> ProviderError:
    body = {"error": {"message": "no", "code": code}}
    return error_of_status(HttpResponse(status, {}, json.dumps(body).encode()))


BY_STATUS = [
    (int(status), outcome, codes(cause)[0])
    for told, outcome, cause in (row[:3] for row in rows(section("By HTTP status")) if row[0][0].isdigit())
    for status in told.split(", ")
]
BY_CODE = [
    (code, outcome, codes(cause)[0])
    for told, outcome, cause in (row[:3] for row in rows(section("By HTTP status")) if row[0][0] == "`")
    for code in codes(told)
]


@pytest.mark.parametrize(("status", "outcome", "cause"), BY_STATUS)
def test_a_status_means_what_the_page_says(status: int, outcome: str, cause: str) -> None:
    got = fault(status, None)
    assert (type(got), got.cause) == (OUTCOMES[outcome], cause)


@pytest.mark.parametrize(("code", "outcome", "cause"), BY_CODE)
def test_a_code_means_what_the_page_says(code: str, outcome: str, cause: str) -> None:
    got = fault(400, code)
    assert (type(got), got.cause) == (OUTCOMES[outcome], cause)


def test_all_that_stops_a_run_by_its_status_or_code_is_on_the_page() -> None:
    assert {status for status, outcome, _ in BY_STATUS if outcome == "the run stops" and status >= 400} == {
        *STOPPING_STATUSES
    }
    assert {code.lower() for code, outcome, _ in BY_CODE if outcome == "the run stops"} == {*STOPPING_CODES}
