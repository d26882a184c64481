"""The report in a real browser: it works from disk, and hostile texts are texts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmbatch_assets.adapters.pages.rendering import parts_of, render_html
from llmbatch_assets.adapters.pages.report_rows import RowSpool
from llmbatch_assets.domain.report.items import ItemRow
from llmbatch_assets_tests.adapters.pages.test_rendering import HOSTILE, LINKS, POINTERS, ROW, page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IMAGE = Path(__file__).parents[3] / "docs/images/report.png"
N_ITEMS = 20_000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM and os.environ.get("CI") != "true", reason="no Chromium is installed here"),
    # Playwright's loop and pipes are closed by the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 20,000 items in which every hostile text stands wherever a text can stand."""
    return written(tmp_path_factory.mktemp("pages") / "report.html", map(hostile_row, range(N_ITEMS)))


def hostile_row(number: int) -> ItemRow:
    text = HOSTILE[number % len(HOSTILE)]
    return ROW._replace(
        key=f"item-{number}",
        row=number,
        group=text[:20] or "g",
        end="accepted" if number % 10 else "failed",
        cause="" if number % 10 else "not_json",
        text=text * 3,
        reasons=text,
        context=f"needle-{number} {text}",
    )


def written(path: Path, rows: Iterable[ItemRow]) -> Path:
    """A report with these rows."""
    with RowSpool() as spool:
        for row in rows:
            spool.add(row)
        (part,) = parts = parts_of(spool.slices(), [path.name])
        with path.open("wb") as file:
            file.writelines(render_html(page("".join(HOSTILE)), POINTERS, LINKS, parts, part, spool))
    return path


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Page]:
    """The page as a reader has it; nothing was asked of a network, told on the console, or run that is not ours."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    odd: list[str] = []
    tab.on("console", lambda message: odd.append(message.text))
    tab.on("pageerror", lambda error: odd.append(str(error)))
    tab.on("dialog", lambda dialog: odd.append(dialog.message))
    tab.on("request", lambda asked: odd.extend([asked.url] * (not asked.url.startswith(("file:", "data:")))))
    tab.goto(report.as_uri())
    yield tab
    assert odd == []
    tab.close()


def keys(tab: Page) -> list[str]:
    """The names of the items that are shown."""
    return tab.locator("#items-table tbody tr > td:first-child button").all_inner_texts()


def test_items_are_shown_a_page_at_a_time(opened: Page) -> None:
    assert keys(opened) == [f"item-{number}" for number in range(25)]
    assert opened.locator("#status").inner_text() == "20,000 items, showing 1 to 25"
    assert opened.locator("#previous").is_disabled()
    opened.locator("#next").click()
    assert keys(opened)[0] == "item-25"
    opened.locator("#last").click()
    assert keys(opened)[-1] == f"item-{N_ITEMS - 1}"
    assert opened.locator("#next").is_disabled()


def test_search_and_filters_find_items(opened: Page) -> None:
    from playwright.sync_api import expect

    opened.locator("#search").fill("NEEDLE-1234 item-12345")
    status = opened.locator("#status")
    expect(status).to_have_text("1 of 20,000 items")
    assert keys(opened) == ["item-12345"]
    opened.locator("#search").fill("")
    opened.locator("#end").select_option("failed: not_json")
    expect(status).to_have_text("2,000 of 20,000 items, showing 1 to 25")
    opened.locator("#search").fill("no such text anywhere")
    expect(status).to_have_text("0 of 20,000 items")


def test_a_filter_that_could_not_narrow_anything_is_not_there(browser: Browser, opened: Page, tmp_path: Path) -> None:
    assert opened.locator("#group").is_visible()
    tab = browser.new_page()
    tab.goto(written(tmp_path / "report.html", [ROW]).as_uri())
    assert not tab.locator("#group").is_visible()
    tab.close()


def test_a_heading_sorts_and_says_so(opened: Page) -> None:
    heading = opened.locator("#items-table thead th").nth(1)
    heading.locator("button").click()
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert keys(opened)[0] == f"item-{N_ITEMS - 1}"


def test_the_keyboard_opens_an_item_whose_hostile_texts_are_texts(opened: Page) -> None:
    for place in range(25):
        button = opened.locator("#items-table tbody tr:not(.more) > td:first-child button").nth(place)
        button.press("Enter")
        assert button.get_attribute("aria-expanded") == "true"
    details = opened.locator("#items-table tr.more")
    assert details.count() == 25
    assert "<script>alert(1)</script>" in details.first.inner_text()
    assert opened.locator("#items-table tbody script, #items-table tbody img, #items-table tbody iframe").count() == 0
    hrefs = opened.evaluate("[...document.querySelectorAll('a')].map((link) => link.getAttribute('href'))")
    assert all(href.startswith(("#", "../")) for href in hrefs)


def test_what_gets_into_the_page_could_not_run_all_the_same(browser: Browser, report: Path) -> None:
    tab = browser.new_page()
    told: list[str] = []
    tab.on("console", lambda message: told.append(message.text))
    tab.goto(report.as_uri())
    tab.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = true\"><a onclick=\"\">x</a>')"
    )
    tab.evaluate(
        "const one = document.createElement('script'); one.textContent = 'window.ran = true'; document.body.append(one)"
    )
    tab.wait_for_timeout(100)
    assert tab.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in told)
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_fits_the_screen(browser: Browser, report: Path, width: int, scheme: str) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    tab.goto(report.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is (scheme == "light")
    assert tab.locator("figure img").evaluate_all("all => all.every((one) => one.naturalWidth > 0)")
    tab.close()


@pytest.mark.skipif("LLMBATCH_SCREENSHOT" not in os.environ, reason="writes docs/images/report.png where asked to")
def test_the_page_is_photographed(browser: Browser) -> None:
    tab = browser.new_page(viewport={"width": 1280, "height": 1000})
    tab.goto(Path(os.environ["LLMBATCH_SCREENSHOT"]).resolve().as_uri())
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    assert tab.screenshot(path=IMAGE).startswith(b"\x89PNG")
    tab.close()
