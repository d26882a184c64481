"""What is in no export, and why: the lines of the second file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from llmbatch_assets.domain.export.columns import Column, Record
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt

Reason = Literal["failed", "missing", "outdated", "row_beyond_cap", "row_without_element", "element_without_row"]


class OlderOutput(NamedTuple):
    """An output of an item that other settings made: its file, and in what they differ."""

    path: str
    differs_in: str


class Standing(NamedTuple):
    """How an item stands: with an output, with its latest failure and that one's file, or with neither."""

    item: WorkItem
    output: AcceptedOutput | None = None
    failure: FailedAttempt | None = None
    failure_file: str = ""
    older: OlderOutput | None = None

    @property
    def reason(self) -> Reason:
        """Why there is no output."""
        return "failed" if self.failure else "outdated" if self.older else "missing"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An item, a row of a group, or an element of its output that is in no export."""

    state: Reason
    partition_key: str
    work_id: str
    row_index: int | None
    group_key: str | None
    cause: str = ""
    message: str = ""
    failure_file: str = ""
    older_output_file: str = ""
    element_json: str = ""

    def record(self) -> Record:
        """What the columns of the second file are taken from."""
        return {"left_out": {name: getattr(self, name) for name in self.__slots__}}


LEFT_OUT_COLUMNS = [
    Column(name, "left_out", (name,), "integer" if name == "row_index" else "string") for name in LeftOut.__slots__
]


def not_made(standing: Standing, row_index: int | None) -> LeftOut:
    """An item without an output, as the line of one of its rows."""
    told = replace(left_out(standing.item, standing.reason, row_index), failure_file=standing.failure_file)
    if standing.older:
        told = replace(told, older_output_file=standing.older.path)
    if standing.failure:
        return replace(told, cause=standing.failure.cause, message=standing.failure.error["message"])
    if standing.older:
        return replace(told, message=f"its output was made with another {standing.older.differs_in}; run again")
    return replace(told, message="was not attempted; run again")


def left_out(item: WorkItem, state: Reason, row_index: int | None, message: str = "", element: str = "") -> LeftOut:
    """Something of an item that is left out."""
    return LeftOut(
        state=state,
        partition_key=item.partition_key,
        work_id=item.work_id,
        row_index=row_index,
        group_key=item.group_key,
        message=message,
        element_json=element,
    )
