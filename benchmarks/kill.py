"""Nothing accepted is lost and little is paid for twice: a run is killed again and again, and started again.

    python -m benchmarks.kill [--items 1000] [--kills 20] [--judge]

Prints what the server saw and writes benchmarks/results/kill.json.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llmbatch_assets_tests.chat_server import ChatServer
from llmbatch_assets_tests.project import Project, make_project

WORKERS = 16


def main() -> None:
    """Kill, start again, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--judge", action="store_true")
    options = parser.parse_args()
    with ChatServer(keep_calls=False) as server, tempfile.TemporaryDirectory() as folder:
        server.delay = 0.05
        project = make_project(
            Path(folder) / "project",
            server.base_url,
            llm={"max_workers": WORKERS},
            prompts={"judge": {"enabled": options.judge}},
        )
        project.table([(f"q{number}", "red", f"question {number}") for number in range(options.items)])
        project.llmbatch("run", "--select", "input_snapshot,work_items")
        lost = kill_again_and_again(project, options.kills)
        ended = project.llmbatch("run", "--select", "llm_outputs")
        result = {
            "items": options.items,
            "judge": options.judge,
            "kills": options.kills,
            "workers": WORKERS,
            "lost": lost,
            "accepted": len(project.outputs()),
            "exit_code": ended.returncode,
            "generate_calls": server.count("generate"),
            "judge_calls": server.count("judge"),
            "repeated_generations_per_kill": round((server.count("generate") - options.items) / options.kills, 2),
        }
    print("  ".join(f"{key}={value}" for key, value in result.items()))
    target = Path(__file__).with_name("results") / f"kill{'_judge' if options.judge else ''}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")


def kill_again_and_again(project: Project, kills: int) -> int:
    """Kill runs at random moments; gives how many accepted outputs were lost or changed by it."""
    draw, lost = random.Random(7), 0
    folder = project.path("artifacts/cache/llm_outputs")
    before: dict[str, bytes] = {}
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-m", "llmbatch_assets.cli", "run", "--select", "llm_outputs"],
            cwd=project.root,
            env=project.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        begun = len(before)
        while process.poll() is None and len(list(folder.glob("*.json"))) <= begun:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = {path.name: path.read_bytes() for path in folder.glob("*.json")}
        lost += sum(now.get(name) != content for name, content in before.items())
        for content in now.values():
            json.loads(content)
        before = now
    return lost


if __name__ == "__main__":
    main()
