"""Measure how long the page of a run takes to load in a browser, next to a plain Dagster asset with as many partitions.

    python -m benchmarks.run_page [--items 20000] [--rounds 3]

Prints the seconds until the page has every event and is idle, and writes benchmarks/results/run_page.json. Each case is
one run of a range in a fresh instance, on the storage that projects get. The plain asset logs its materializations
without metadata, with one path as Dagster's I/O managers do, and with ten numbers. Needs Chromium.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from llmbatch_assets import build_batch
from llmbatch_assets.cli.session import use_project_instance
from llmbatch_assets_tests.dagster_api import running_ui
from llmbatch_assets_tests.project import Project, make_project

if TYPE_CHECKING:
    from playwright.sync_api import Page, WebSocket

PLAIN: Mapping[str, dict[str, Any]] = {
    "plain_without_metadata": {},
    "plain_with_path": {"path": dg.MetadataValue.path("artifacts/cache/llm_outputs/value.json")},
    "plain_with_ten_numbers": {f"number_{n}": n for n in range(10)},
}
OURS = "llm_outputs"
RUN = "run.json"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def make_run(case: str, count: int, root: Path) -> None:
    """Make a project with so many items, and one run that materializes all of them."""
    project = make_project(root, llm={"max_workers": 16})
    project.table([(f"q{number}", "red", f"How long is road number {number}?") for number in range(count)])
    use_project_instance(root)
    os.chdir(root)
    with dg.DagsterInstance.get() as instance:
        batch = build_batch(project.config)
        definitions = batch.definitions()
        definitions.resolve_job_def("prepare").execute_in_process(run_config=QUIET, instance=instance)
        keys = project.partition_keys()
        if case != OURS:
            definitions = plain_definitions(batch.names.partitions, PLAIN[case])
        bounds = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
        asset = OURS if case == OURS else "plain"
        job = with_job(definitions, asset).resolve_job_def("measured")
        ended = job.execute_in_process(run_config=QUIET, instance=instance, tags=bounds)
        assert ended.success
        made = instance.get_materialized_partitions(dg.AssetKey(asset))
        assert len(made) == count
    (root.parent / RUN).write_text(json.dumps(ended.run_id))


def plain_definitions(partitions: dg.DynamicPartitionsDefinition, metadata: dict[str, Any]) -> dg.Definitions:
    """Return an asset that does nothing but log its materializations."""

    @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run(), output_required=False)
    def plain(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
        for key in context.partition_keys:
            context.log_event(dg.AssetMaterialization("plain", partition=key, metadata=metadata))
        yield from ()

    return dg.Definitions(assets=[plain])


def with_job(definitions: dg.Definitions, asset: str) -> dg.Definitions:
    """Add a job of this one asset."""
    job = dg.define_asset_job("measured", [asset], executor_def=dg.in_process_executor)
    return dg.Definitions.merge(definitions, dg.Definitions(jobs=[job]))


def load_seconds(page: "Page", address: str) -> float:
    """Open a run's page; return the seconds until it has all events and nothing to do."""
    complete: list[float] = []

    def follow(socket: "WebSocket") -> None:
        socket.on("framereceived", look)

    def look(frame: str | bytes) -> None:
        text = frame if isinstance(frame, str) else frame.decode()
        if '"hasMorePastEvents": false' in text or '"hasMorePastEvents":false' in text:
            complete.append(time.perf_counter())

    page.on("websocket", follow)
    started = time.perf_counter()
    page.goto(address)
    while not complete:
        page.wait_for_timeout(50)
    page.evaluate("() => new Promise((done) => requestIdleCallback(done))")
    seconds = time.perf_counter() - started
    page.remove_listener("websocket", follow)
    page.goto("about:blank")
    return seconds


def measured(case: str, count: int, rounds: int) -> dict[str, object]:
    """Measure one case: the median of the rounds, after one that warms up the server."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER")}
        command = [sys.executable, "-m", "benchmarks.run_page", "--make", case, folder, "--items", str(count)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        run_id = json.loads((Path(folder) / RUN).read_text())
        with running_ui(Project(root)) as ui, sync_playwright() as playwright:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.set_default_timeout(300_000)
            taken = [load_seconds(page, f"{ui.address}/runs/{run_id}") for _ in range(rounds + 1)]
            browser.close()
    return {"case": case, "items": count, "rounds": rounds, "seconds": round(statistics.median(taken[1:]), 1)}


def main() -> None:
    """Measure every case, print the results and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_run(options.make[0], options.items, Path(options.make[1]) / "project")
        return
    results = []
    for case in (*PLAIN, OURS):
        results.append(measured(case, options.items, options.rounds))
        print("  ".join(f"{key}={value}" for key, value in results[-1].items()), flush=True)
    target = Path(__file__).with_name("results") / "run_page.json"
    target.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
