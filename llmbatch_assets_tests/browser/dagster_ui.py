"""Actions of a user in Dagster's pages, by the labels shown there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbatch_assets_tests.dagster_api import DagsterApi

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).parents[2] / "docs/images"
PARTITIONS = "/assets/llm_outputs?view=partitions"
LOCATION = "/locations/llmbatch_assets.definitions/jobs"


class DagsterUi(DagsterApi):
    """One window on a running Dagster."""

    def __init__(self, page: Page, address: str) -> None:
        super().__init__(address)
        self.page = page

    def open(self, path: str) -> None:
        """Go to a page."""
        self.page.goto(self.address + path, wait_until="domcontentloaded")

    def wait_for(self, text: str) -> None:
        """Wait until a text is shown."""
        self.page.get_by_text(text).first.wait_for()

    def click_exact(self, button: str) -> None:
        """Click the button of exactly this name."""
        self.page.get_by_role("button", name=button, exact=True).first.click()

    def open_run_of(self, backfill: str, asset: str) -> None:
        """Open the page of the backfill's run of an asset."""
        self.open(f"/runs/{self.run_of(backfill, asset)}")

    def click(self, role: Any, name: str) -> None:
        """Click what is called so."""
        self.page.get_by_role(role, name=name).first.click()

    def materialize_all(self, job: str) -> str:
        """Run an asset job; gives how it ended."""
        self.open(f"{LOCATION}/{job}")
        before = self.runs()
        self.click("button", "Materialize all")
        return str(self.ended_after(before)[0]["status"])

    def open_materialize_all(self, group: str) -> None:
        """Open the dialog of Materialize all on the lineage of a group of assets."""
        self.open(f"/locations/llmbatch_assets.definitions/asset-groups/{group}")
        self.click("button", "Materialize all")
        self.wait_for("Partition selection")

    def add_partition(self, key: str) -> None:
        """Add a partition by hand in the open dialog, which selects it."""
        self.page.get_by_text("Add a partition").first.click()
        self.page.get_by_placeholder("name", exact=True).fill(key)
        self.click("button", "Save")
        self.wait_for("1 partition")

    def launched_backfill(self) -> str:
        """Launch the backfill of the open dialog; return its id."""
        before = {backfill["id"] for backfill in self.backfills()}
        self.click("button", "Launch backfill")
        self.wait_until(lambda: len(self.backfills()) > len(before), 60, "no backfill was launched")
        return next(str(one["id"]) for one in self.backfills() if one["id"] not in before)

    def launch_pending(self, prefix: str = "") -> None:
        """Start ``generate_pending`` from its launchpad, and see its run."""
        self.open(f"{LOCATION}/{prefix}generate_pending")
        self.click("tab", "Launchpad")
        self.wait_for("No errors")
        self.screenshot("dagster-launchpad")
        self.click("button", "Launch Run")
        self.page.wait_for_url(re.compile("/runs/"))

    def terminate(self) -> None:
        """End the run whose page is open."""
        self.click("button", "Terminate")
        self.click("button", "Terminate 1 run")

    def launch_backfill(self, partitions: str) -> None:
        """Start a backfill of the partitions of ``llm_outputs`` that have a name in its dialog, such as Failed."""
        self.open(PARTITIONS)
        self.click("button", "Materialize…")
        self.page.get_by_role("button", name=partitions, exact=True).click()
        self.screenshot("dagster-backfill")
        self.click("button", "Launch backfill")

    def is_on(self, sensor: str) -> bool:
        """Whether the page of a sensor shows it as running."""
        self.open(f"/locations/llmbatch_assets.definitions/sensors/{sensor}")
        switch = self.page.locator("tr").filter(has_text="Running").get_by_role("checkbox")
        switch.wait_for(state="attached")
        return switch.is_checked()

    def switch(self, sensor: str) -> None:
        """Turn a sensor on, or off again."""
        on = self.is_on(sensor)
        self.page.locator("tr").filter(has_text="Running").locator("label").click()
        self.wait_until(lambda: self.is_on(sensor) != on, 60, f"{sensor} was not switched")

    def screenshot(self, name: str) -> None:
        """Keep the window as a picture of the documentation, where that is asked for."""
        if os.environ.get("LLMBATCH_SCREENSHOTS") == "1":
            self.page.wait_for_timeout(1500)
            self.page.screenshot(path=IMAGES / f"{name}.png")
