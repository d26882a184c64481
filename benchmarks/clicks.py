"""Measure what follows a click in Dagster: the time to a run's first call, of runs with nothing to do, and of a backfill.

    python -m benchmarks.clicks [--items 50] [--rounds 5]

Prints the seconds and writes benchmarks/results/clicks.json. Our runs are launched through the webserver as its pages do,
next to a plain Dagster project of assets that do nothing, on the same storage and with the same executor.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.fake_server import ANSWER, response
from benchmarks.plain_project import ASSETS, LOCATION, plain_instance, running_plain
from llmbatch_assets.assets import STAGES
from llmbatch_assets_tests.dagster_api import ENDED, DagsterApi, running_ui
from llmbatch_assets_tests.project import Project, make_project

OURS = "llmbatch_assets.definitions"
LAUNCH = """mutation($params: ExecutionParams!) {launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}"""
BACKFILL = """mutation($params: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}"""
RUN = "query($id: ID!) {runOrError(runId: $id) {... on Run {status startTime endTime}}}"
STATE = (
    "query($id: String!) {partitionBackfillOrError(backfillId: $id) {... on PartitionBackfill {status endTimestamp}}}"
)
# The daemon looks for changes every 30 s; the runs that it starts must not overlap with a measured one.
QUIET_SEC = 3.0
MAX_SEC = 300.0


class Clicks(DagsterApi):
    """What a person starts on the pages of a code location."""

    def __init__(self, address: str, location: str) -> None:
        super().__init__(address)
        self._location = location

    def run_seconds(self, job: str) -> dict[str, float]:
        """Run a job; return the seconds until its process began, and until it ended."""
        launched = time.time()
        run = self._ended(self.start(job))
        return {"started": run["startTime"] - launched, "ended": run["endTime"] - launched}

    def start(self, job: str, partition: str = "", asset: str = "") -> str:
        """Launch a run of a job, or of one partition of an asset, and return its id."""
        selector: dict[str, Any] = {
            "jobName": job,
            "repositoryName": "__repository__",
            "repositoryLocationName": self._location,
        }
        if asset:
            selector["assetSelection"] = [{"path": [asset]}]
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        params = {"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": {"tags": tags}}
        return str(self.asks(LAUNCH, params=params)["launchRun"]["run"]["runId"])

    def _ended(self, run_id: str) -> dict[str, Any]:
        return wait_for(lambda: self._run(run_id), lambda run: run["status"] in ENDED)

    def _run(self, run_id: str) -> dict[str, Any]:
        return dict(self.asks(RUN, id=run_id)["runOrError"])

    def backfill_seconds(self, assets: Sequence[str], partitions: Sequence[str]) -> float:
        """Materialize the assets, of all partitions, and return the seconds until the backfill ends."""
        launched = time.time()
        selection = [{"path": [name]} for name in assets]
        params = {"assetSelection": selection, "partitionNames": list(partitions)}
        backfill = self.asks(BACKFILL, params=params)["launchPartitionBackfill"]["backfillId"]
        state = wait_for(
            lambda: self.asks(STATE, id=backfill)["partitionBackfillOrError"],
            lambda state: state["status"].startswith(("COMPLETED", "FAILED", "CANCELED")),
        )
        assert state["status"] == "COMPLETED_SUCCESS", state
        return float(state["endTimestamp"]) - launched

    def wait_until_quiet(self) -> None:
        """Return when no run has been open for some seconds."""
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < QUIET_SEC:
            if any(run["status"] not in ENDED for run in self.runs()):
                quiet_since = time.monotonic()
            time.sleep(0.5)


def wait_for(look: Callable[[], dict[str, Any]], is_over: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Look until it is over, and return what was seen last."""
    deadline = time.monotonic() + MAX_SEC
    while time.monotonic() < deadline:
        if is_over(seen := look()):
            return seen
        time.sleep(0.2)
    raise AssertionError(f"not over within {MAX_SEC} s: {seen}")


@contextmanager
def recording_calls(calls: list[float]) -> Iterator[str]:
    """Serve a model that notes when it is called; yields its address."""

    class Model(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(time.time())
            self.rfile.read(int(self.headers["Content-Length"]))
            self.wfile.write(response(ANSWER))
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def our_seconds(root: Path, count: int, rounds: int) -> dict[str, list[float]]:
    """Measure our project, all of whose items but one are done."""
    calls: list[float] = []
    with recording_calls(calls) as address:
        project = make_project(root, address)
        project.table([(f"q{number}", "red", f"How long is road {number}?") for number in range(count)])
        made = project.llmbatch("run")
        assert made.returncode == 0, made.stderr
        with running_ui(project) as ui:
            clicks = Clicks(ui.address, OURS)
            found: dict[str, list[float]] = {"first call of generate_pending": [], "first call of one partition": []}
            for _ in range(rounds):
                for name, partition in zip(found, ("", project.partition_keys()[0]), strict=True):
                    found[name].append(first_call(clicks, project, calls, partition))
            for job in ("generate_pending", "prepare", "publish"):
                found |= job_seconds(clicks, job, f"{job}, nothing to do", rounds)
            clicks.wait_until_quiet()
            assets = [asset for assets in STAGES.values() for asset in assets]
            found["materialize all"] = [clicks.backfill_seconds(assets, project.partition_keys())]
    return found


def first_call(clicks: Clicks, project: Project, calls: list[float], partition: str) -> float:
    """Remove an output and return the seconds from launching the run that makes it again to its first call."""
    clicks.wait_until_quiet()
    project.output_of(0).unlink()
    before, launched = len(calls), time.time()
    if partition:
        clicks.start("__ASSET_JOB", partition, "llm_outputs")
    else:
        clicks.start("generate_pending")
    wait_for(lambda: {"calls": len(calls)}, lambda seen: seen["calls"] > before)
    return calls[before] - launched


def job_seconds(clicks: Clicks, job: str, name: str, rounds: int) -> dict[str, list[float]]:
    """Measure runs of a job, and when their processes began."""
    taken = []
    for _ in range(rounds):
        clicks.wait_until_quiet()
        taken.append(clicks.run_seconds(job))
    return {name: [one["ended"] for one in taken], f"{name}: process started": [one["started"] for one in taken]}


def plain_seconds(root: Path, count: int, rounds: int) -> dict[str, list[float]]:
    """Measure the plain project."""
    project = Project(root)
    keys = [f"q{number}" for number in range(count)]
    with plain_instance(project, keys):
        pass
    with running_plain(project) as ui:
        clicks = Clicks(ui.address, LOCATION)
        found = job_seconds(clicks, "empty", "plain: an empty asset", rounds)
        found["plain: materialize all"] = [clicks.backfill_seconds(ASSETS, keys)]
    return found


def main() -> None:
    """Measure both projects, print the medians and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for measure, name in ((plain_seconds, "plain"), (our_seconds, "project")):
            for case, taken in measure(Path(folder) / name, options.items, options.rounds).items():
                seconds = round(statistics.median(taken), 1)
                results.append({"case": case, "items": options.items, "rounds": len(taken), "seconds": seconds})
                print(f"{seconds:6.1f} s  {case}  ({', '.join(f'{one:.1f}' for one in sorted(taken))})", flush=True)
    target = Path(__file__).with_name("results") / "clicks.json"
    target.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
