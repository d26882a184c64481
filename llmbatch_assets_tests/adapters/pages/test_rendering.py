"""Hostile texts of tables and models: in the report they are shown and have no effect, in HTML and in Markdown."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmbatch_assets.adapters.pages.rendering import (
    Folders,
    Link,
    parts_of,
    render_html,
    render_markdown,
    render_summary,
)
from llmbatch_assets.adapters.pages.report_charts import render_charts
from llmbatch_assets.adapters.pages.report_rows import RowSpool
from llmbatch_assets.domain.configuration.output_blocks import Report
from llmbatch_assets.domain.report.findings import Findings
from llmbatch_assets.domain.report.items import ItemRow, item_row, sample_of
from llmbatch_assets.domain.report.page import About, ReportPage, data_quality, report_page
from llmbatch_assets.domain.report.value_counts import CountedColumn
from llmbatch_assets.domain.run.ledger import RunUsage, last_runs
from llmbatch_assets_tests.adapters.values import accepted, failed, work_item
from llmbatch_assets_tests.domain.run.test_run_history import record

HOSTILE = [
    # HTML.
    "<script>alert(1)</script>",
    "</pre></article></main><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</style><style>body{display:none}</style>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "' onfocus='alert(1)' autofocus '",
    "<svg/onload=alert(1)>",
    "<a href='javascript:alert(1)'>click</a>",
    "<iframe src=//evil.example></iframe>",
    "<!-- ",
    "--><script>alert(1)</script>",
    "<![CDATA[",
    "&lt;script&gt;",
    "<details open ontoggle=alert(1)>",
    "{{ 7 * 7 }}{% for x in y %}",
    # Markdown.
    "# Heading\n\n**bold** _em_ `code` ~~gone~~",
    "[click](javascript:alert(1))",
    "![pixel](http://evil.example/pixel.png)",
    "[a]: http://evil.example\n[a]",
    "<http://evil.example>",
    "a | b | c\n--- | --- | ---",
    "```\n<script>alert(1)</script>\n```",
    "````\n# Heading\n<script>alert(1)</script>\n`````\n![x](http://evil.example)",
    "`` ` ``",
    "~~~\n<b>x</b>\n~~~",
    "- list\n1. list\n> quote\n---\n===",
    "\\`\\[x](y)",
    "\r\n\r\n# Heading\r\n<script>alert(1)</script>",
    "\n\n<script>alert(1)</script>\n\n",
    "    <script>indented()</script>",
    "\u2028<script>alert(1)</script>",
]
VOID = {"meta", "link", "br", "hr", "img", "input", "col", "wbr"}
COMMONMARK = MarkdownIt("commonmark").enable("table").enable("strikethrough")


class Page(HTMLParser):
    """What a browser makes of a page: elements with attributes, and the text in between."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.odd: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.odd.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.odd.append(data)

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    @property
    def text(self) -> str:
        return "".join(self.texts)


def page(text: str, **changes: Any) -> ReportPage:
    """A report in which the text stands wherever a table, a model or a configuration can put it."""
    findings = Findings(
        Report(sample_per_group=2, count_by=("c",)), [CountedColumn(text, "input"), CountedColumn("f", "output")]
    )
    findings.rows = [{text: text}] * 3
    parsed = {"answer": text, text: [text], "f": [text, text]}
    judge = {"verdict": text, "score": 90, "reasons": [text]}
    outputs = {0: accepted(0, parsed=parsed, judge=judge)}
    rejected = failed(1, message=text).model_copy(update={"cause": "judge_rejected", "judge": judge})
    failures = {1: [rejected, failed(1, 2, message=text)]}
    items = [work_item(number, context=text, group_key=text or None) for number in range(3)]
    for number, item in enumerate(items):
        findings.add(item, outputs.get(number), failures.get(number, []))
    meta = {"input_path": text, "warnings": [text], "cells_changed": {text: {text: 1}}}
    runs = last_runs(
        [record(text, "2026-01-01T00:00:00Z", model_name=text, stopped_by=text)] * 2, {text: RunUsage()}, 3
    )
    about = About(
        title=text,
        facts={"model": text, text: "x"},
        calls=text,
        spent=text,
        config={"run": {"name": text}, text: text},
        quality=data_quality(meta, [text], findings),
        runs=runs,
    )
    samples = [sample_of(item, outputs[0], full=True) for item in findings.samples.items()]
    return report_page(findings, about._replace(**changes), samples)


ROW = item_row(work_item(0), accepted(0))
POINTERS = {"input snapshot": Link("artifacts/cache/pipeline2_input.json", "../cache/pipeline2_input.json")}
LINKS = Folders("../cache/llm_outputs/", "../cache/llm_failures/")


def html_of(values: ReportPage, pointers: Any = POINTERS, rows: Iterable[ItemRow] = ()) -> str:
    """The page as it is written."""
    with RowSpool() as spool:
        for row in rows:
            spool.add(row)
        (part,) = parts = parts_of(spool.slices(), ["report.html"])
        return b"".join(render_html(values, pointers, LINKS, parts, part, spool)).decode()


def markdown_of(values: ReportPage, pointers: Any = POINTERS) -> str:
    return render_markdown(values, pointers)


def plain_attributes(page: Page) -> list[tuple[str, list[str]]]:
    """The elements with the names of their attributes: what an attribute says may be a text of anybody's."""
    return [(tag, list(attributes)) for tag, attributes in page.elements]


def assert_inert(parsed: Page, plain: Page) -> None:
    """The elements are those of a report of plain words: no text has become one, or an attribute."""
    assert plain_attributes(parsed) == plain_attributes(plain)
    assert parsed.odd == plain.odd == []
    names = [name for _, attributes in parsed.elements for name in attributes]
    assert [name for name in names if name.startswith("on") or name in ("action", "srcdoc")] == []
    for tag, attributes in parsed.elements:
        assert re.fullmatch(r"text-align:(right|left)|", attributes.get("style") or ""), tag
        assert (attributes.get("src") or "data:image/svg+xml;base64,").startswith("data:image/svg+xml;base64,"), tag
        assert re.match(r"(#|\.\./|$)", attributes.get("href") or ""), tag


# HTML.


@cache
def plain_page() -> ReportPage:
    return page("plain")


@cache
def plain_html() -> Page:
    return Page(html_of(page("plain")))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_and_inert_in_html(text: str) -> None:
    parsed = Page(html_of(page(text)))
    assert_inert(parsed, plain_html())
    assert " ".join(text.split()) in " ".join(parsed.text.split())


@settings(max_examples=10, deadline=None)
@given(st.text(st.sampled_from("<>&\"'`/=!-[]() \nscriptonx{}%"), min_size=1, max_size=60).filter(str.strip))
def test_no_text_becomes_html(text: str) -> None:
    assert_inert(Page(html_of(page(text))), plain_html())


@pytest.mark.parametrize("text", [*HOSTILE, "\u2028", "\u2029", "\ud800", "<!--<script>", "]]>", "\0"])
def test_the_rows_are_data_that_cannot_leave_their_element(text: str) -> None:
    row = ROW._replace(text=text, key=text)
    source = html_of(plain_page(), rows=[row])
    opened = '<script type="application/json" id="rows">'
    inside = source.partition(opened)[2].partition("</script>")[0]
    assert json.loads(inside) == [list(row)]
    assert not set("<>&\u2028\u2029") & set(inside)
    assert source.count("</script>") == 2


def test_the_page_loads_nothing_and_runs_its_own_script_alone() -> None:
    source = html_of(page("plain"))
    parsed = Page(source)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    assert not [name for tag, attributes in parsed.elements for name in attributes if tag == "script" and name == "src"]
    assert "url(" not in source
    assert "@import" not in source
    (policy,) = [a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    (style,) = re.findall(r"<style>(.*?)</style>", source, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    prints = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{prints[0]}'; script-src 'sha256-{prints[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_the_page_is_whole_and_says_what_it_is() -> None:
    source = html_of(page("plain"))
    parsed = Page(source)
    assert source.startswith("<!doctype html>")
    assert (parsed.open, parsed.odd) == ([], [])
    assert ("html", {"lang": "en"}) in parsed.elements
    assert ("meta", {"charset": "utf-8"}) in parsed.elements


def test_the_page_can_be_found_ones_way_in_without_seeing_it() -> None:
    parsed = Page(html_of(page("plain")))
    assert {"header", "nav", "main", "footer"} < set(parsed.tags)
    assert parsed.tags.count("h1") == 1
    assert parsed.tags.count("caption") == parsed.tags.count("table")
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes in parsed.elements:
        if tag == "img":
            assert attributes["alt"]
        if tag == "section":
            assert attributes["aria-labelledby"] in ids
        if (attributes.get("href") or "").startswith("#"):
            assert str(attributes["href"])[1:] in ids
        if tag == "svg":
            assert attributes["aria-hidden"] == "true"
    levels = [int(tag[1]) for tag in parsed.tags if re.fullmatch(r"h\d", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))


# Markdown.


def rendered(text: str) -> Page:
    """The report as a Markdown renderer that lets HTML through shows it."""
    return Page(COMMONMARK.render(markdown_of(page(text))))


@cache
def plain_markdown() -> Page:
    return rendered("plain")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_and_inert_in_markdown(text: str) -> None:
    parsed = rendered(text)
    assert_inert(parsed, plain_markdown())
    assert " ".join(text.split()) in " ".join(parsed.text.split())


@settings(max_examples=25, deadline=None)
@given(st.text(st.sampled_from("`~*_#|[]()!<>\\&;-+=:.1 \n\r\tax/"), min_size=1, max_size=40).filter(str.strip))
def test_no_text_becomes_markdown(text: str) -> None:
    assert_inert(rendered(text), plain_markdown())


@pytest.mark.parametrize("text", ["artifacts/`<b>x</b>`/x.json", "artifacts/<b>/x.json", "a`*b*`c"])
def test_paths_are_inert_too(text: str) -> None:
    own, plain = ({"outputs": Link(name, "../x")} for name in (text, "artifacts/x.json"))
    for render in (html_of, lambda *values: COMMONMARK.render(markdown_of(*values))):
        assert_inert(Page(render(page("plain"), own)), Page(render(page("plain"), plain)))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_dagster_shows_is_inert_too(text: str) -> None:
    values, plain = page(text), page("plain")
    for render in (render_summary, lambda one: render_charts(one.all_charts)):
        assert_inert(Page(COMMONMARK.render(render(values))), Page(COMMONMARK.render(render(plain))))


# Both.


@pytest.mark.parametrize("render", [html_of, markdown_of])
def test_counts_causes_and_pointers_are_shown(render: Any) -> None:
    text = render(page("plain")).replace("**", "")
    for told in ("1 of 3 items accepted", "1 failed", "1 not attempted", "schema_mismatch: 1", "item-1"):
        assert told in text
    assert "pipeline2_input.json" in text


@pytest.mark.parametrize("render", [html_of, markdown_of, render_summary])
@pytest.mark.parametrize(("provider", "told"), [("offline", True), ("openai", False)])
def test_made_up_answers_are_called_so(render: Any, provider: str, told: bool) -> None:
    about = About("t", {"Provider": provider}, "0", "$0.00", {}, data_quality({}, (), Findings(Report())), ())
    findings = Findings(Report())
    findings.add(work_item(0), accepted(0), [])
    assert ("answers are made up" in render(report_page(findings, about, []))) is told


@pytest.mark.parametrize("render", [html_of, markdown_of])
def test_a_report_of_nothing_is_a_report(render: Any) -> None:
    findings = Findings(Report())
    about = About("Empty", {}, "0", "$0.00", {}, data_quality({}, (), findings), ())
    text = render(report_page(findings, about, []), {})
    assert "0 of 0 items accepted" in text.replace("**", "")
    assert "None." in text


@pytest.mark.parametrize("render", [html_of, markdown_of])
def test_the_same_findings_are_the_same_bytes(render: Any) -> None:
    assert render(page("né 表 🎉")) == render(page("né 表 🎉"))


# Many items.


def test_items_that_are_too_many_for_a_page_go_on_further_ones() -> None:
    values = plain_page()
    with RowSpool(page_bytes=1_000) as spool:
        for number in range(20):
            spool.add(ROW._replace(row=number))
        slices = spool.slices()
        parts = parts_of(slices, [f"part{number}.html" for number in range(len(slices))])
        pages = [b"".join(render_html(values, POINTERS, LINKS, parts, part, spool)).decode() for part in parts]

    shown: list[int] = []
    for source in pages:
        inside = source.partition('id="rows">')[2].partition("</script>")[0]
        assert len(inside.encode()) < 1_100
        shown += [row[1] for row in json.loads(inside)]
    assert len(pages) > 2
    assert shown == list(range(20))
    assert "By group" in pages[0]
    assert "By group" not in pages[1]
    assert all(f'href="{part.href}"' in pages[0] for part in parts[1:])
    assert 'href="part0.html"' in pages[-1]
