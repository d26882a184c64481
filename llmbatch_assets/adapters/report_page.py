"""The report as Markdown and as a page that opens from disk. Everything that came from a table or a model is escaped."""

from __future__ import annotations

import html
import re
from typing import Any

import jinja2
from markupsafe import Markup

# Characters that mean something in Markdown, wherever they stand.
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~])")


def _plain(text: Any) -> str:
    """Text for a line or a table cell of Markdown: shown as it is, without effect."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def _fenced(text: Any) -> Markup:
    """Text as a block; its own backticks cannot end the block."""
    longest = max((len(run) for run in re.findall(r"`+", str(text))), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{text}\n{fence}")  # noqa: S704  # Markdown, not HTML


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llmbatch_assets.adapters"),
        autoescape=autoescape,  # noqa: S701  # off for Markdown alone, whose own filters escape
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(plain=_plain, fenced=_fenced)
    return environment


def render_markdown(page: dict[str, Any]) -> str:
    """The report as Markdown."""
    return _environment(autoescape=False).get_template("report.md.j2").render(page)


def render_html(page: dict[str, Any]) -> str:
    """The report as one self-contained page: no script, nothing loaded from anywhere."""
    return _environment(autoescape=True).get_template("report.html.j2").render(page)
