"""Charts are the same bytes wherever they are drawn, and follow the reader's colours."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest

from llmbatch_assets.adapters.pages.report_charts import COLOURS, chart_svg, neutral_chart_image
from llmbatch_assets.adapters.pages.report_charts import _drawn as drawn
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
    assert neutral_chart_image(chart).startswith("data:image/svg+xml;base64,")


def test_a_chart_is_the_same_bytes_whatever_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    first = chart_svg(BARS)
    drawn.cache_clear()
    with mpl.rc_context({"font.size": 22, "axes.grid": True, "svg.fonttype": "none", "axes.facecolor": "red"}):
        monkeypatch.setenv("TZ", "Asia/Kathmandu")
        assert chart_svg(BARS) == first
        assert mpl.rcParams["font.size"] == 22


def test_importing_the_page_does_not_import_matplotlib() -> None:
    code = "import sys, llmbatch_assets.adapters.pages.rendering; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
