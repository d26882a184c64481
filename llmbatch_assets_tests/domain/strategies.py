"""Tables, items, outputs and Hypothesis strategies for the tests of the domain layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from llmbatch_assets.domain.configuration.output_blocks import Report
from llmbatch_assets.domain.configuration.parameters import Parameters, read_parameters
from llmbatch_assets.domain.items.identity import BatchIdentity, partition_key, work_id
from llmbatch_assets.domain.items.table import Snapshot
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput, FailedAttempt, Source
from llmbatch_assets.domain.report.findings import Findings
from llmbatch_assets.domain.usage import TokenUsage

COLUMNS = ("id", "team", "text")
ROW_MODES = {
    "row_wise": {"enabled": False, "column": "team"},
    "group_output": {"enabled": True, "column": "team", "mode": "group_output"},
    "row_output_with_group_context": {"enabled": True, "column": "team", "mode": "row_output_with_group_context"},
}

# Enough examples to find a slip, few enough to be run at every save.
quick = settings(max_examples=30, deadline=None)

# Any text that UTF-8 can hold.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)

# Braces, commas and words that templates and delimiters could take for their own.
CELLS = st.one_of(
    st.sampled_from(["", "{context}", "{{", "}}", "a, b", "{team}", "{__ROW_KV_BLOCK__}", "naïve", "x\ny"]),
    TEXTS,
)
TEAMS = st.sampled_from(["", "red", "blue", "Red, or blue", "緑"])
ROWS = st.lists(st.tuples(CELLS, TEAMS, CELLS), max_size=8)

# What breaks tables, in any order: quotes, delimiters, escapes, line breaks, formulas, blanks of all widths, words for
# nothing, scripts of either direction, marks that combine, and what workbooks write for a control character.
_FRAGMENTS = (
    *(
        '"',
        '""',
        "'",
        ",",
        ";",
        "|",
        "\t",
        "\\",
        "\\n",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\x85",
        "\u2028",
        "=",
        "+",
        "-",
        "@",
        "#",
    ),
    *(
        " ",
        "  ",
        "\u00a0",
        "\u200b",
        "\ufeff",
        "\u3000",
        "NaN",
        "null",
        "007",
        "1e5",
        ": ",
        "team: red",
        "[1]",
        "{team}",
        "}}",
    ),
    *(
        "a",
        "Zz",
        "¶",
        "ß",
        "é",
        "e\u0301",
        "שלום",
        "\u202eabc",
        "می\u200cخواهم",
        "表",
        "🎉",
        "👩\u200d💻",
        "_x000D_",
        "<b>&amp;",
    ),
)
# Characters that every format can hold: XML has neither most control characters nor U+FFFE and U+FFFF.
_HELD = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
EXOTIC = st.one_of(
    st.sampled_from(["", "NaN", "null", "#N/A", "007", "=1+1"]),
    st.lists(st.sampled_from(_FRAGMENTS), max_size=5).map("".join),
    st.text(_HELD, max_size=8),
)
PARAGRAPHS = st.lists(EXOTIC, max_size=4).map("\n".join)
# A mark that combines makes another key of the same look.
KEYS = st.sampled_from(["", "red", "Red", "caf\u00e9", "cafe\u0301", "緑", "a: b\nc", "{n_rows}"])
EXOTIC_ROWS = st.lists(st.tuples(EXOTIC, KEYS, PARAGRAPHS), max_size=8)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def snapshot(rows: Sequence[Sequence[str]], columns: Sequence[str] = COLUMNS) -> Snapshot:
    """A cleaned table."""
    named = [dict(zip(columns, row, strict=True)) for row in rows]
    return Snapshot(meta={}, n_rows=len(rows), n_cols=len(columns), columns=list(columns), rows=named)


def parameters(**blocks: Mapping[str, Any]) -> Parameters:
    """Parameters as read from a file. Empty rows have items like others, unless ``input`` is given."""
    plain: dict[str, Mapping[str, Any]] = {"input": {"skip_empty_rows": False}}
    return read_parameters({name: dict(block) for name, block in (plain | blocks).items()})


def make_item(number: int, group: str | None = None, **changes: Any) -> WorkItem:
    """A work item of a row-wise batch."""
    context = f"text {number}"
    item_id = work_id("row_wise", group, context, None, 0)
    item = WorkItem(
        work_id=item_id,
        partition_key=partition_key(f"item {number}", item_id),
        group_key=group,
        row_index=number,
        group_context_id=None,
        context=context,
        meta={"mode": "row_wise"},
    )
    return replace(item, **changes)


def make_identity(**changes: Any) -> BatchIdentity:
    """The identity of a batch with a judge."""
    parts: dict[str, Any] = {
        "prompt_sha": "p" * 40,
        "schema_sha": "s" * 40,
        "model_name": "test-model",
        "temperature": 0.5,
        "settings": {},
        "judge_enabled": True,
        "judge_prompt_sha": "j" * 40,
        "judge": {"model_name": "test-judge"},
    }
    return BatchIdentity(**parts | changes)


def make_source(**changes: Any) -> Source:
    """The source of that batch's outputs."""
    return Source(
        identity=make_identity(**changes),
        provider="openai",
        generation_prompt_path="prompts/generation.yaml",
        judge_prompt_path="prompts/judge.yaml",
    )


def make_output(item: WorkItem, parsed: Mapping[str, Any] | None = None, **changes: Any) -> AcceptedOutput:
    """An accepted output of an item."""
    output = AcceptedOutput(
        meta=make_source().meta(item, 1, "2026-01-02T03:04:05Z"),
        parsed={"answer": "yes"} if parsed is None else dict(parsed),
        judge={"reasons": ["fine"], "score": 90, "verdict": "PASS"},
        usage=TokenUsage(requests=2, input_tokens=10, output_tokens=5),
        latency_sec=1.5,
    )
    return output.model_copy(update=changes)


def make_failure(item: WorkItem, cause: str = "schema_mismatch", **changes: Any) -> FailedAttempt:
    """A failed attempt of an item."""
    content: dict[str, Any] = {
        "meta": make_source().meta(item, 1, "2026-01-02T03:04:05Z"),
        "error": {"type": "AnswerError", "message": f"{cause} of {item.partition_key}"},
        "class": "answer",
        "cause": cause,
        "raw_text": "no",
        "feedback": "why",
        "judge": None,
        "usage": TokenUsage(requests=1),
        "latency_sec": 0.5,
    }
    return FailedAttempt.model_validate(content | changes)


def make_findings(ends: Sequence[tuple[str | None, str]], samples: int = 2, examples: int = 2, **more: Any) -> Findings:
    """The findings about items, given the group and end of each."""
    found = Findings(Report(sample_per_group=samples, max_reason_examples=examples), **more)
    for number, (group, end) in enumerate(ends):
        item = make_item(number, group)
        output = make_output(item) if end == "accepted" else None
        row = found.add(item, output, [make_failure(item)] if end == "failed" else [])
        assert row.end == end
    return found
