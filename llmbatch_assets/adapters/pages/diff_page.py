"""Outputs before and after a change as a page that opens from disk. Everything from a table or a model is escaped."""

from __future__ import annotations

from typing import Any

import jinja2


def render_diff(page: dict[str, Any]) -> str:
    """The comparison as one self-contained page: no script, nothing loaded from anywhere."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llmbatch_assets.adapters.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("diff.html.j2").render(page)
