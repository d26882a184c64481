"""HTML page of ``llmbatch diff``."""

from __future__ import annotations

from typing import Any

import jinja2


def render_diff(page: dict[str, Any]) -> str:
    """Render the comparison as one self-contained page without scripts. All values are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llmbatch_assets.adapters.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("diff.html.j2").render(page)
