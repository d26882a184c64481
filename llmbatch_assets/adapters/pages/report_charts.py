"""Charts as SVG, drawn by matplotlib: the same bytes for the same numbers, readable on light and on dark ground."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llmbatch_assets.domain.report.charts import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Drawn in these colours, which are then replaced by names that the reader's colour scheme gives a value.
_INK, _GRID = "#010203", "#040506"
_TONES = {"plain": "#070809", "good": "#0a0b0c", "bad": "#0d0e0f", "open": "#101112"}
_NAMES = {_INK: "ink", _GRID: "grid", **{colour: tone for tone, colour in _TONES.items()}}
LIGHT = {
    "ink": "#3d4852",
    "grid": "#d5dae0",
    "plain": "#3e63b8",
    "good": "#1d7a4a",
    "bad": "#b3362c",
    "open": "#858f9a",
}
DARK = {"ink": "#c3ccd5", "grid": "#3b444e", "plain": "#7f9fe8", "good": "#56b98a", "bad": "#ec8078", "open": "#7b8692"}
# In a place whose ground is not known.
MIDDLE = {
    "ink": "#76808b",
    "grid": "#8d97a255",
    "plain": "#5b80d6",
    "good": "#33996a",
    "bad": "#d4594f",
    "open": "#8d97a2",
}
_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "llmbatch",
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _GRID,
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_SIZE = (4.8, 2.5)
_MANY_BARS = 8
_FEWEST_PLACES = 3
# Characters below the axis that have room next to each other.
_CROWDED = 48


def chart_svg(chart: Chart) -> str:
    """The chart as an SVG image that follows the reader's light or dark colour scheme."""
    style = f":root{{{_values(LIGHT)}}}@media (prefers-color-scheme:dark){{:root{{{_values(DARK)}}}}}"
    drawn = _named(_drawn(chart), {name: f"var(--{name})" for name in LIGHT})
    return drawn.replace("<defs>", f"<defs>\n  <style>{style}</style>", 1)


def chart_image(chart: Chart) -> str:
    """The chart as the address of an image that is its own content."""
    return _address(chart_svg(chart))


def chart_image_for_any_ground(chart: Chart) -> str:
    """The same in colours that can be read on light and on dark ground."""
    return _address(_named(_drawn(chart), MIDDLE))


def _address(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"


def _values(colours: Mapping[str, str]) -> str:
    return ";".join(f"--{name}:{value}" for name, value in colours.items())


def _named(svg: str, colours: Mapping[str, str]) -> str:
    for drawn, name in _NAMES.items():
        svg = svg.replace(drawn, colours[name])
    return svg


@contextmanager
def _our_settings() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context():
        # Whatever a matplotlibrc of the user's says.
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)  # type: ignore[arg-type]  # its keys are listed as literals
        yield


# Page and web interface show the same charts in other colours.
@lru_cache(maxsize=32)
def _drawn(chart: Chart) -> str:
    # Takes a second, which only reports should.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _our_settings():
        figure = Figure(figsize=_SIZE, layout="constrained")
        _draw(figure.add_subplot(), chart)
        text = io.StringIO()
        FigureCanvasSVG(figure)
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), count=1, flags=re.DOTALL)


def _draw(axes: Axes, chart: Chart) -> None:
    places = range(len(chart.bars))
    width = 0.92 if chart.edges else 0.6
    drawn = axes.bar(places, [bar.value for bar in chart.bars], width, color=[_TONES[bar.tone] for bar in chart.bars])
    if len(chart.bars) <= _MANY_BARS:
        axes.bar_label(drawn, [_short(bar.value) if bar.value else "" for bar in chart.bars], padding=2, fontsize=8)
    _name_places(axes, chart)
    # A bar alone would be as wide as the chart.
    spare = max(0, _FEWEST_PLACES - len(chart.bars)) / 2
    axes.set_xlim(-0.6 - spare, len(chart.bars) - 0.4 + spare)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.set_ylim(0, chart.longest * 1.15)
    axes.locator_params(axis="y", nbins=5, integer=all(bar.value == int(bar.value) for bar in chart.bars))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"


def _name_places(axes: Axes, chart: Chart) -> None:
    if chart.edges is None:
        labels = [bar.label for bar in chart.bars]
        crowded = sum(map(len, labels)) > _CROWDED
        axes.set_xticks(range(len(labels)), labels, rotation=45 if crowded else 0, ha="right" if crowded else "center")
        return
    edges = [(place - 0.5, edge) for place, edge in enumerate(chart.edges) if edge is not None]
    crowded = sum(len(f"{edge:,.6g}") for _, edge in edges) > _CROWDED
    shown = edges[:: 2 if crowded else 1]
    axes.set_xticks([place for place, _ in shown], [f"{edge:,.6g}" for _, edge in shown])
