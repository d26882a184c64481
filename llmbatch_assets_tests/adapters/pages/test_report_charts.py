"""Charts are the same bytes wherever they are drawn, and follow the reader's colours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest

from llmbatch_assets.adapters.pages.report_charts import (
    COLOURS,
    chart_svg,
    load_drawings,
    render_charts,
    save_drawings,
)
from llmbatch_assets.domain.report.charts import Bar, Chart

BARS = Chart("b", "Bars", "label", "items", (Bar("one", 3), Bar("$\\frac{1}$ <&>", 0.25, "bad")))
BINS = Chart("h", "Bins", "number", "items", (Bar("0 to 10", 4), Bar("10 and more", 1)), (0.0, 10.0, None))


@pytest.mark.parametrize("chart", [BARS, BINS])
def test_a_chart_is_an_image_without_date_maker_or_address(chart: Chart) -> None:
    svg = chart_svg(chart)
    ET.fromstring(svg)  # noqa: S314  # ours
    assert "prefers-color-scheme" in svg
    assert "atplotlib v" not in svg
    assert "dc:date" not in svg
    assert not [colour for colour in COLOURS.values() if colour.placeholder in svg]
    assert "](data:image/svg+xml;base64," in render_charts([chart])


def test_a_chart_is_the_same_bytes_whatever_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    first = chart_svg(BARS)
    load_drawings(Path("no such file"))
    with mpl.rc_context({"font.size": 22, "axes.grid": True, "svg.fonttype": "none", "axes.facecolor": "red"}):
        monkeypatch.setenv("TZ", "Asia/Kathmandu")
        assert chart_svg(BARS) == first
        assert mpl.rcParams["font.size"] == 22


def test_importing_the_page_does_not_import_matplotlib() -> None:
    code = "import sys, llmbatch_assets.adapters.pages.rendering; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# A second report that shows the same numbers must not take a second longer than one without charts.
def test_charts_of_the_previous_report_are_shown_again_without_matplotlib(tmp_path: Path) -> None:
    path = tmp_path / "report_charts.json"
    load_drawings(path)
    first = [chart_svg(BARS), render_charts([BARS])]
    save_drawings(path, [BARS, BINS])
    load_drawings(path)
    assert [chart_svg(BARS), render_charts([BARS])] == first

    drawing = f"""
import sys
from pathlib import Path
from llmbatch_assets.adapters.pages.report_charts import chart_svg, load_drawings
from llmbatch_assets.domain.report.charts import Bar, Chart
load_drawings(Path({str(path)!r}))
chart_svg({BARS!r})
print("matplotlib" in sys.modules)
chart_svg({BARS._replace(title="Other")!r})
print("matplotlib" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", drawing], check=True, capture_output=True, text=True)
    assert ended.stdout.split() == ["False", "True"]


def test_a_chart_that_is_no_longer_shown_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "report_charts.json"
    load_drawings(path)
    for chart in (BARS, BINS):
        chart_svg(chart)
    save_drawings(path, [BARS, BINS])
    both = path.stat().st_size
    save_drawings(path, [BINS])
    assert 0 < path.stat().st_size < both


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": 1}', b"\xff"])
def test_a_damaged_file_of_drawings_is_ignored(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report_charts.json"
    path.write_bytes(content)
    load_drawings(path)
    assert chart_svg(BARS).startswith("<svg")
