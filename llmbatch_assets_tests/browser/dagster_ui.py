"""What a person does in Dagster's pages, by the names that stand there."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).parents[2] / "docs/images"
LOCATION = "/locations/llmbatch_assets.definitions/jobs"
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
LATEST = "{runsOrError(limit: 1) {... on Runs {results {runId jobName status}}}}"


class DagsterUi:
    """One window on a running Dagster."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self._address = address

    def open(self, path: str) -> None:
        """Go to a page."""
        self.page.goto(self._address + path, wait_until="domcontentloaded")

    def wait_for(self, text: str) -> None:
        """Wait until a text is shown."""
        self.page.get_by_text(text).first.wait_for()

    def click(self, role: Any, name: str) -> None:
        """Click what is called so."""
        self.page.get_by_role(role, name=name).first.click()

    def materialize_all(self, job: str) -> str:
        """Run an asset job; gives how it ended."""
        self.open(f"{LOCATION}/{job}")
        before = self.latest_run()
        self.click("button", "Materialize all")
        return self.ended_after(before)

    def launch_pending(self) -> str | None:
        """Start ``generate_pending`` from its launchpad; gives the run before it."""
        before = self.latest_run().get("runId")
        self.open(f"{LOCATION}/generate_pending")
        self.click("tab", "Launchpad")
        self.wait_for("No errors")
        self.screenshot("dagster-launchpad")
        self.click("button", "Launch Run")
        self.page.wait_for_url(re.compile("/runs/"))
        return before

    def ended_after(self, before: dict[str, str] | str | None, seconds: float = 60) -> str:
        """Wait for the run after ``before``; gives its status."""
        former = before.get("runId") if isinstance(before, dict) else before
        deadline = time.monotonic() + seconds
        run: dict[str, str] = {}
        while time.monotonic() < deadline:
            run = self.latest_run()
            if run.get("runId") != former and run.get("status") in ENDED:
                return run["status"]
            time.sleep(0.3)
        raise AssertionError(f"no run ended within {seconds} s: {run}")

    def latest_run(self) -> dict[str, str]:
        """Dagster's newest run, empty where there is none."""
        runs = self.asks(LATEST)["runsOrError"]["results"]
        return dict(runs[0]) if runs else {}

    def asks(self, query: str) -> Any:
        """Dagster's answer to a question, as its own pages ask."""
        answer = self.page.request.post(f"{self._address}/graphql", data={"query": query})
        return answer.json()["data"]

    def screenshot(self, name: str) -> None:
        """Keep the window as a picture of the documentation, where that is asked for."""
        if os.environ.get("LLMBATCH_SCREENSHOTS") == "1":
            self.page.wait_for_timeout(1500)
            self.page.screenshot(path=IMAGES / f"{name}.png")
