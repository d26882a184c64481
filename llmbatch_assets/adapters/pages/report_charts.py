"""Charts drawn by matplotlib as SVG. The same numbers give the same bytes.

A second report with the same numbers does not draw them again, which takes a second: the drawings are kept in a file.
"""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter

from llmbatch_assets.adapters.files.atomic import read_regular, write_json_if_changed
from llmbatch_assets.domain.canonical import sha1_named
from llmbatch_assets.domain.report.charts import Chart
from llmbatch_assets.domain.report.markdown import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Colour(NamedTuple):
    """The placeholder that is drawn, and the colours that replace it: by colour scheme, and for any background."""

    placeholder: str
    light: str
    dark: str
    neutral: str


COLOURS = {
    "ink": Colour("#010203", "#3d4852", "#c3ccd5", "#76808b"),
    "grid": Colour("#040506", "#d5dae0", "#3b444e", "#8d97a255"),
    "plain": Colour("#070809", "#3e63b8", "#7f9fe8", "#5b80d6"),
    "good": Colour("#0a0b0c", "#1d7a4a", "#56b98a", "#33996a"),
    "bad": Colour("#0d0e0f", "#b3362c", "#ec8078", "#d4594f"),
    "open": Colour("#101112", "#858f9a", "#7b8692", "#8d97a2"),
}
_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "llmbatch",
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), COLOURS["ink"].placeholder),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), COLOURS["grid"].placeholder),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
}
_SIZE_INCHES = (4.8, 2.5)
# More bars get no labels above them.
_MOST_LABELLED = 8
_FEWEST_PLACES = 3
# The number of characters that fit side by side below the axis.
_AXIS_CHARS = 48
_DRAWINGS = TypeAdapter(dict[str, str])
# Drawings by what they show: the page and Dagster's UI show the same ones in different colours.
_drawings: dict[str, str] = {}


def load_drawings(path: Path) -> None:
    """Take over what an earlier report has drawn. A file that cannot be read is ignored: the charts are drawn again."""
    _drawings.clear()
    with suppress(OSError, ValueError):
        _drawings.update(_DRAWINGS.validate_json(read_regular(path)))


def save_drawings(path: Path, charts: Sequence[Chart]) -> None:
    """Keep the drawings of these charts for the next report."""
    write_json_if_changed(path, {_key(chart): _drawing(chart) for chart in charts})


def _key(chart: Chart) -> str:
    # Numbers as floats: a chart that was read from a manifest has no integers.
    bars = [bar._replace(value=float(bar.value)) for bar in chart.bars]
    edges = chart.edges and [None if edge is None else float(edge) for edge in chart.edges]
    return sha1_named(chart=[*chart[:4], bars, edges], drawn_by=_drawn_by())


@cache
def _drawn_by() -> str:
    """Identify the version of matplotlib and of this module."""
    return sha1_named(matplotlib=version("matplotlib"), module=Path(__file__).read_text(encoding="utf-8"))


def chart_svg(chart: Chart) -> str:
    """The chart as SVG that follows the reader's light or dark colour scheme."""
    light, dark = (
        ";".join(f"--{name}:{getattr(colour, scheme)}" for name, colour in COLOURS.items())
        for scheme in ("light", "dark")
    )
    style = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    svg = _coloured(chart, {name: f"var(--{name})" for name in COLOURS})
    return svg.replace("<defs>", f"<defs>\n  <style>{style}</style>", 1)


def chart_image(chart: Chart) -> str:
    """``chart_svg`` as a data URL."""
    return _data_url(chart_svg(chart))


def render_charts(charts: Sequence[Chart]) -> str:
    """The charts as Markdown with embedded images, in colours that are readable on light and dark backgrounds."""
    return "\n\n".join(
        f"### {plain(chart.title)}\n\n![{plain(chart.alt)}]({_neutral_image(chart)})" for chart in charts
    )


def _neutral_image(chart: Chart) -> str:
    return _data_url(_coloured(chart, {name: colour.neutral for name, colour in COLOURS.items()}))


def _data_url(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"


def _coloured(chart: Chart, colours: dict[str, str]) -> str:
    svg = _drawing(chart)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour.placeholder, colours[name])
    return svg


def _drawing(chart: Chart) -> str:
    key = _key(chart)
    _drawings[key] = _drawings.get(key) or _drawn(chart)
    return _drawings[key]


def _drawn(chart: Chart) -> str:
    # These imports take a second, so only reports pay for them.
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context():
        # Ignore the user's matplotlibrc.
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)  # type: ignore[arg-type]  # its keys are listed as literals
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        _draw(figure.add_subplot(), chart)
        text = io.StringIO()
        FigureCanvasSVG(figure)
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), count=1, flags=re.DOTALL)


def _draw(axes: Axes, chart: Chart) -> None:
    values = [bar.value for bar in chart.bars]
    colours = [COLOURS[bar.tone].placeholder for bar in chart.bars]
    drawn = axes.bar(range(len(values)), values, 0.92 if chart.edges else 0.6, color=colours)
    if len(values) <= _MOST_LABELLED:
        axes.bar_label(drawn, [_short(value) if value else "" for value in values], padding=2, fontsize=8)
    _label_x_axis(axes, chart)
    # Margins keep a few bars from filling the whole width.
    spare = max(0, _FEWEST_PLACES - len(values)) / 2
    axes.set_xlim(-0.6 - spare, len(values) - 0.4 + spare)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.set_ylim(0, chart.longest * 1.15)
    axes.locator_params(axis="y", nbins=5, integer=all(value == int(value) for value in values))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"


def _label_x_axis(axes: Axes, chart: Chart) -> None:
    ticks: dict[float, str]
    if chart.edges is None:
        ticks = {place: bar.label for place, bar in enumerate(chart.bars)}
    else:
        ticks = {place - 0.5: f"{edge:,.6g}" for place, edge in enumerate(chart.edges) if edge is not None}
    places, labels = list(ticks), list(ticks.values())
    is_crowded = sum(map(len, labels)) > _AXIS_CHARS
    if chart.edges is None:
        axes.set_xticks(places, labels, rotation=45 if is_crowded else 0, ha="right" if is_crowded else "center")
    else:
        step = 2 if is_crowded else 1
        axes.set_xticks(places[::step], labels[::step])
