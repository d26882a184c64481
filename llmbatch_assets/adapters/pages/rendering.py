"""The report as Markdown and HTML, and the comparison as HTML. All text from tables and models is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from markupsafe import Markup

from llmbatch_assets.adapters.pages.report_charts import chart_image
from llmbatch_assets.adapters.pages.report_rows import RowSpool, Slice
from llmbatch_assets.domain.report.items import ItemRow
from llmbatch_assets.domain.report.markdown import fenced, plain
from llmbatch_assets.domain.report.page import ReportPage
from llmbatch_assets.domain.report.value_counts import ValueCount
from llmbatch_assets.domain.text import counted, escape_controls

if TYPE_CHECKING:
    import jinja2

_BAR_BLOCKS = 20
# Stands for the item rows in the rendered page. Escaped text has no `<`, so it cannot contain this.
_ROWS = Markup("<!--rows-->")


class Link(NamedTuple):
    """The text that is shown for a file, and its relative address, if it has one."""

    text: str
    href: str | None


class Folders(NamedTuple):
    """The relative addresses of the artifact folders, empty if there are none."""

    outputs: str
    failures: str


class Part(NamedTuple):
    """One page of the report. Pages after the first hold only items."""

    href: str
    range: str
    slice: Slice


def parts_of(slices: Sequence[Slice], hrefs: Sequence[str]) -> list[Part]:
    return [
        Part(href, f"{part.n_before + 1:,} to {part.n_before + part.n_rows:,}", part)
        for part, href in zip(slices, hrefs, strict=True)
    ]


def render_markdown(page: ReportPage, files: Mapping[str, Link]) -> str:
    return escape_controls(_template("report.md.j2").render(page._asdict(), files=files))


def render_summary(page: ReportPage) -> str:
    """The key tables as Markdown, short enough for Dagster's UI."""
    return escape_controls(_template("summary.md.j2").render(page._asdict()))


def render_diff(page: dict[str, Any]) -> str:
    """The comparison of ``llmbatch diff`` as one self-contained page without scripts."""
    return escape_controls(_template("diff.html.j2").render(page))


def render_html(
    page: ReportPage, files: Mapping[str, Link], folders: Folders, parts: Sequence[Part], part: Part, spool: RowSpool
) -> Iterator[bytes]:
    """Yield one page of the report in pieces. The page loads nothing and runs only its own script."""
    counts = page.counts
    text = _template("report.html.j2" if part == parts[0] else "part.html.j2").render(
        page._asdict(),
        files=files,
        folders=folders,
        parts=parts,
        part=part,
        total=ValueCount("", counts["accepted"], counts["failed"], counts["missing"]),
        has_judge=bool(page.rejections.counts or page.approvals.counts),
        fields=ItemRow._fields,
        css=_own("report.css"),
        script=_own("report.js"),
        policy=_content_policy(),
        rows=_ROWS,
    )  # fmt: skip
    before, after = escape_controls(text).split(_ROWS)
    yield before.encode()
    yield from spool.json(part.slice)
    yield after.encode()


@cache
def _own(name: str) -> Markup:
    """A file from the templates folder."""
    text = resources.files("llmbatch_assets.adapters.pages").joinpath("templates", name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704  # ours


def _content_policy() -> str:
    """The content security policy: no requests, and only the page's own styles, script and embedded images."""
    digests = (hashlib.sha256(_own(name).encode()).digest() for name in ("report.css", "report.js"))
    style, script = (f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return f"default-src 'none'; img-src data:; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'"


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


@cache
def _environment() -> jinja2.Environment:
    """One environment for all templates, which keeps each compiled."""
    # Only commands that write a page must wait for it.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llmbatch_assets.adapters.pages"),
        # Not for Markdown, which is escaped by its own filters.
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    return environment


def _fenced(text: Any) -> Markup:
    return Markup(fenced(text))  # noqa: S704  # Markdown, not HTML


def _number(value: float) -> str:
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _bar_width(part: float, whole: float) -> str:
    """The width of a bar on a scale of 0 to 100."""
    return f"{100 * part / whole:.2f}" if whole else "0"


def _blocks(part: float, whole: float) -> str:
    """A bar of block characters: at least one, or none if the part is 0."""
    return "█" * max(round(_BAR_BLOCKS * part / whole), 1) if part and whole else ""


def _link(link: Link) -> Markup:
    text = Markup("<code>{}</code>").format(link.text)
    return text if link.href is None else Markup('<a href="{}">{}</a>').format(link.href, text)


def _file_in(name: str, folder: str) -> Markup:
    return _link(Link(name, folder + quote(name) if folder else None))


_FILTERS = {
    "counted": counted,
    "plain": plain,
    "fenced": _fenced,
    "number": _number,
    "percent": _percent,
    "bar_width": _bar_width,
    "blocks": _blocks,
    "image": chart_image,
    "link": _link,
    "file_in": _file_in,
}
