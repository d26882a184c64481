"""Hostile texts of tables and models: in the report they are shown and have no effect, in HTML and in Markdown."""

from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmbatch_assets.adapters.report_page import render_html, render_markdown
from llmbatch_assets.domain.report import Findings, gather, report_page
from llmbatch_assets_tests.adapters.values import accepted, failed, work_item

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


def page(text: str, **changes: Any) -> dict[str, Any]:
    """A report in which the text stands wherever a table, a model or a configuration can put it."""
    findings = Findings(sample_per_group=2, max_examples=3, full_examples=True)
    outputs = {0: accepted(0, parsed={"answer": text, text: [text]}, judge={"verdict": text, "score": 90})}
    failures = {1: failed(1, message=text)}
    items = [work_item(number, context=text, group_key=text or None) for number in range(3)]
    gather(
        findings, items, lambda item: outputs.get(item.row_index or 0), lambda item: failures.get(item.row_index or 0)
    )
    values = {
        "title": text,
        "config": {"run": {"name": text}, text: text},
        "facts": {"model": text, text: "x"},
        "pointers": {"input snapshot": "artifacts/cache/pipeline2_input.json"},
    }
    return report_page(findings, **(values | changes))


def assert_inert(parsed: Page, plain: Page) -> None:
    """The elements are those of a report of plain words: no text has become one, or an attribute."""
    assert parsed.elements == plain.elements
    assert parsed.odd == plain.odd == []
    assert "script" not in parsed.tags
    names = [name for _, attributes in parsed.elements for name in attributes]
    assert [name for name in names if name.startswith("on") or name in ("src", "href", "action", "srcdoc")] == []


# HTML.


@cache
def plain_html() -> Page:
    return Page(render_html(page("plain")))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_and_inert_in_html(text: str) -> None:
    parsed = Page(render_html(page(text)))
    assert_inert(parsed, plain_html())
    assert " ".join(text.split()) in " ".join(parsed.text.split())


@settings(max_examples=30, deadline=None)
@given(st.text(st.sampled_from("<>&\"'`/=!-[]() \nscriptonx{}%"), min_size=1, max_size=60).filter(str.strip))
def test_no_text_becomes_html(text: str) -> None:
    assert_inert(Page(render_html(page(text))), plain_html())


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    source = render_html(page("plain"))
    parsed = Page(source)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    assert not [name for _, attributes in parsed.elements for name in attributes if name in ("src", "href")]
    assert "url(" not in source
    assert "@import" not in source
    policies = [a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_the_page_is_whole_and_says_what_it_is() -> None:
    source = render_html(page("plain"))
    parsed = Page(source)
    assert source.startswith("<!doctype html>")
    assert (parsed.open, parsed.odd) == ([], [])
    assert ("html", {"lang": "en"}) in parsed.elements
    assert ("meta", {"charset": "utf-8"}) in parsed.elements


# Markdown.


def rendered(text: str) -> Page:
    """The report as a Markdown renderer that lets HTML through shows it."""
    return Page(COMMONMARK.render(render_markdown(page(text))))


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
    own, plain = ({"outputs": name} for name in (text, "artifacts/x.json"))
    for render in (render_html, lambda values: COMMONMARK.render(render_markdown(values))):
        assert_inert(Page(render(page("plain", pointers=own))), Page(render(page("plain", pointers=plain))))


# Both.


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_counts_causes_and_pointers_are_told(render: Any) -> None:
    text = render(page("plain")).replace("**", "").replace("\\", "")
    for told in ("1 of 3 items accepted", "1 failed", "1 not attempted", "schema_mismatch: 1", "item-1"):
        assert told in text
    assert "pipeline2_input.json" in text


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_a_report_of_nothing_is_a_report(render: Any) -> None:
    findings = Findings(sample_per_group=2, max_examples=3, full_examples=True)
    text = render(report_page(findings, title="Empty", config={}, facts={}, pointers={}))
    assert "0 of 0 items accepted" in text.replace("**", "")
    assert "None." in text


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_the_same_findings_are_the_same_bytes(render: Any) -> None:
    assert render(page("né 表 🎉")) == render(page("né 表 🎉"))
