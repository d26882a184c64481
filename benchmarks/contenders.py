"""The programs that do the same batch: ours, two bare loops, and two other frameworks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import Taken, timed
from llmbatch_assets_tests.project import Project

CLI = (sys.executable, "-m", "llmbatch_assets.cli")
OURS = "llmbatch"
REPOSITORY = Path(__file__).parents[1]
# Neither usage statistics nor price lists: a proxy that does not exist refuses whatever would leave this machine.
CLOSED = {
    "TELEMETRY_ENABLED": "false",
    "NEMO_TELEMETRY_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}


class Contender(NamedTuple):
    """A program that does the batch of a project; done again, it makes no call."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]

    def run(self, project: Project, port: int, workers: int) -> Taken:
        """Run it on a project; raises where it fails."""
        if self.name == OURS:
            return run_ours(project, *self.command)
        where = (f"http://127.0.0.1:{port}/v1", str(project.root), str(workers))
        # Some keep settings and caches in the home folder.
        environment = project.environment(HOME=str(project.root), **self.environment)
        return checked(timed([*self.command, *where], project.root, environment), project)


def ours() -> Contender:
    """The command line, whole."""
    return Contender(OURS, ("run",), {})


def loop(kind: str) -> Contender:
    """A bare loop, in our interpreter."""
    command = (sys.executable, "-m", "benchmarks.bare_loops", kind)
    return Contender(kind, command, {"PYTHONPATH": str(REPOSITORY)})


def peer(name: str, python: Path) -> Contender:
    """Another framework, in the interpreter of its own environment."""
    command = (str(python), "-m", f"benchmarks.peers.with_{name.replace('-', '_')}")
    return Contender(name, command, {"PYTHONPATH": str(REPOSITORY), **CLOSED})


def checked(taken: Taken, project: Project) -> Taken:
    """The same; raises where the command failed."""
    if taken.exit_code:
        raise SystemExit((project.root / "last_run.log").read_text())
    return taken


def run_ours(project: Project, *arguments: str) -> Taken:
    """A command of ours, whole; raises where it fails."""
    return checked(timed([*CLI, *arguments], project.root, project.environment()), project)
