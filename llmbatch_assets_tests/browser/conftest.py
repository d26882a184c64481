"""The project's Dagster in a real browser: webserver and daemon as ``llmbatch ui`` starts them, a scripted model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from llmbatch_assets_tests.browser.dagster_ui import DagsterUi
from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.dagster_api import running_ui
from llmbatch_assets_tests.project import Project, make_project

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
N_ROWS = 24


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM and os.environ.get("CI") != "true":
        pytest.skip("no Chromium is installed here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def model() -> Iterator[ChatServer]:
    """The scripted model that the project asks."""
    with ChatServer() as running:
        yield running


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, model: ChatServer) -> Project:
    """A project of 24 items, judged."""
    project = make_project(
        tmp_path_factory.mktemp("ui") / "project",
        model.base_url,
        work_items={"label_column": "id"},
        prompts={"judge": {"enabled": True}},
        # One after another, so that what is done at any time is the beginning of the table.
        llm={"max_workers": 1},
    )
    project.table([(f"q{n:02d}", "red" if n % 2 else "blue", f"Question number {n}?") for n in range(1, N_ROWS + 1)])
    return project


@pytest.fixture(scope="module")
def ui(browser: Browser, shown: Project) -> Iterator[DagsterUi]:
    """A browser window on the project's Dagster."""
    with window(browser, shown) as opened:
        yield opened


@contextmanager
def window(browser: Browser, project: Project) -> Iterator[DagsterUi]:
    """A browser window on the Dagster of any project, which is started for it."""
    with running_ui(project) as running:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        page.set_default_timeout(45_000)
        yield DagsterUi(page, running.address)
        context.close()
