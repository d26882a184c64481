"""The report as Markdown and as pages that open from disk. Everything that came from a table or a model is escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from llmbatch_assets.adapters.pages.report_charts import chart_image, chart_image_for_any_ground
from llmbatch_assets.adapters.pages.report_rows import RowSpool, Slice
from llmbatch_assets.domain.report.charts import Chart
from llmbatch_assets.domain.report.rows import ItemRow
from llmbatch_assets.domain.report.tallies import Line

# Characters that mean something in Markdown inside a line; an underscore means nothing between letters or digits. The
# fewer, the better the source can be read.
_MARKDOWN = re.compile(r"([\\`*\[\]#|~]|(?<![^\W_])_|_(?![^\W_]))")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_BLOCKS = 20
# No escaped text can hold it: that has no `<`.
_ROWS = Markup("<!--rows-->")
_COLUMNS = (
    ("item", "key", ""),
    ("row", "row", "n wide-only"),
    ("group", "group", "wide-only"),
    ("outcome", "end", ""),
    ("score", "score", "n"),
    ("attempts", "attempts", "n wide-only"),
    ("tokens", "tokens", "n wide-only"),
    ("cost in $", "cost", "n wide-only"),
    ("output or message", "text", ""),
)


class Link(NamedTuple):
    """What is shown of a file, and its address seen from the report; None where there is no way that travels along."""

    text: str
    href: str | None


class Links(NamedTuple):
    """Addresses of the folders that the report points into, empty where it cannot."""

    outputs: str
    failures: str


class Part(NamedTuple):
    """One page of the report: the first has everything, further ones only items."""

    number: int
    href: str
    range: str
    slice: Slice


def parts_of(slices: Sequence[Slice], names: Sequence[str]) -> list[Part]:
    """The pages of a report, by what each holds and how its file is called."""
    return [
        Part(number, name, f"{part.n_before + 1:,} to {part.n_before + part.n_rows:,}", part)
        for number, (part, name) in enumerate(zip(slices, names, strict=True), start=1)
    ]


def render_markdown(page: Mapping[str, Any], pointers: Mapping[str, Link]) -> str:
    """The report as Markdown."""
    return _environment(autoescape=False).get_template("report.md.j2").render(page, pointers=pointers)


def render_summary(page: Mapping[str, Any]) -> str:
    """The numbers of the report as Markdown, short enough for a log or a web interface."""
    return _environment(autoescape=False).get_template("summary.md.j2").render(page)


def render_charts(charts: Sequence[Chart]) -> str:
    """The charts as Markdown whose images are data."""
    return "\n\n".join(
        f"### {_plain(chart.title)}\n\n![{_plain(chart.alt)}]({chart_image_for_any_ground(chart)})" for chart in charts
    )


def render_html(
    page: Mapping[str, Any],
    pointers: Mapping[str, Link],
    links: Links,
    parts: Sequence[Part],
    part: Part,
    spool: RowSpool,
) -> Iterator[bytes]:
    """One page of the report, in pieces. It loads nothing, and nothing in it runs but its own script."""
    counts = page["counts"]
    values = {
        **page,
        "pointers": pointers,
        "links": links,
        "parts": parts,
        "part": part,
        "whole": Line("", counts["accepted"], counts["failed"], counts["missing"]),
        "has_judge": bool(page["rejections"].told or page["approvals"].told),
        "columns": [(name, ItemRow._fields.index(field), kind) for name, field, kind in _COLUMNS],
        "css": _own("report.css"),
        "script": _own("report.js"),
        "policy": content_policy(),
        "rows": _ROWS,
    }
    template = "report.html.j2" if part.number == 1 else "part.html.j2"
    before, after = _environment(autoescape=True).get_template(template).render(values).split(_ROWS)
    # Halves of surrogate pairs are no characters, and a page has to be one that can be read.
    yield before.encode("utf-8", "replace")
    yield from spool.json(part.slice)
    yield after.encode("utf-8", "replace")


@cache
def _own(name: str) -> Markup:
    """A file that is shipped with the templates."""
    text = resources.files("llmbatch_assets.adapters.pages").joinpath("templates", name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704  # ours


def content_policy() -> str:
    """What a browser may do with the page: show it with these very styles and this very script, and images in it."""
    style, script = (_fingerprint(_own(name)) for name in ("report.css", "report.js"))
    return f"default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; base-uri 'none'; form-action 'none'"


def _fingerprint(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llmbatch_assets.adapters.pages"),
        autoescape=autoescape,  # noqa: S701  # off for Markdown alone, whose own filters escape
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        plain=_plain,
        fenced=_fenced,
        number=_number,
        percent=_percent,
        of=_share,
        blocks=_blocks,
        minute=_minute,
        image=chart_image,
        link=_link,
        file_in=_file_in,
    )
    return environment


def _plain(text: Any) -> str:
    """Text for a line or a table cell of Markdown: shown as it is, without effect."""
    line = _ENTITY.sub("&amp;", " ".join(str(text).split())).replace("<", "&lt;")
    return _MARKDOWN.sub(r"\\\1", line)


def _fenced(text: Any) -> Markup:
    """Text as a block; its own backticks cannot end the block."""
    longest = max((len(run) for run in re.findall(r"`+", str(text))), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{text}\n{fence}")  # noqa: S704  # Markdown, not HTML


def _number(value: float) -> str:
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _share(part: float, whole: float) -> str:
    """The part as a share of a hundred."""
    return f"{100 * part / whole:.2f}" if whole else "0"


def _blocks(part: float, whole: float) -> str:
    """A bar made of characters; what is not nothing has at least one."""
    return "█" * max(round(_BLOCKS * part / whole), 1) if part and whole else ""


def _minute(stamp: str) -> str:
    return stamp[:16].replace("T", " ")


def _link(link: Link) -> Markup:
    shown_text = Markup("<code>{}</code>").format(link.text)
    return shown_text if link.href is None else Markup('<a href="{}">{}</a>').format(link.href, shown_text)


def _file_in(name: str, folder: str) -> Markup:
    return _link(Link(name, folder + quote(name) if folder else None))
