"""Two processes never have the same item, and a dead one has none."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmbatch_assets.adapters.store.claims import claiming

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")

HOLDS = """
import sys
from pathlib import Path
from llmbatch_assets.adapters.store.claims import FileClaims

claims = FileClaims(Path(sys.argv[1]))
print([claims.claim(name) for name in sys.argv[2:]], flush=True)
sys.stdin.read()
"""


def cache_id(number: int) -> str:
    return hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()


def holder(path: Path, *ids: str) -> subprocess.Popen[str]:
    """Another process that claims these and waits; the first line that it prints says what it got."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path), *ids], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def got(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_what_one_process_has_another_does_not_get_until_it_is_released(tmp_path: Path) -> None:
    with claiming(tmp_path / "cache/claims.lock") as claims:
        assert [claims.claim(cache_id(number)) for number in range(3)] == [True] * 3
        claims.release(cache_id(1))
        with holder(tmp_path / "cache/claims.lock", *(cache_id(number) for number in range(4))) as other:
            assert got(other) == "[False, True, False, True]"
            assert not claims.claim(cache_id(1))
            other.kill()
        # However a process ends, what it had is free.
        assert claims.claim(cache_id(1))


def test_the_claims_of_a_run_end_with_it(tmp_path: Path) -> None:
    path = tmp_path / "claims.lock"
    with claiming(path) as claims:
        claims.claim(cache_id(0))
    with holder(path, cache_id(0)) as other:
        assert got(other) == "[True]"
        other.kill()


def test_claims_leave_no_file_per_item(tmp_path: Path) -> None:
    with claiming(tmp_path / "claims.lock") as claims:
        for number in range(1000):
            claims.claim(cache_id(number))
        assert os.listdir(tmp_path) == ["claims.lock"]  # noqa: PTH208
        assert (tmp_path / "claims.lock").stat().st_size == 0
