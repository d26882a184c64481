"""Every asset is described, and refers to a page that exists."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg

from llmbatch_assets import build_batch
from llmbatch_assets_tests.project import make_project

DOCS = Path(__file__).parents[2] / "docs"


def test_every_asset_says_what_it_is_reads_and_writes_and_names_its_page(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    graph = build_batch(project.config).definitions().resolve_asset_graph()
    described = {key: graph.get(key).description or "" for key in graph.get_all_asset_keys()}
    assert len(described) >= 12
    for key, text in described.items():
        sentences, page = text.split("\n\nDocumentation: ")
        assert (DOCS.parent / page.strip("`")).is_file(), key
        assert len(re.findall(r"\.(?= |$)", sentences)) >= 2, key
    made = [key for key in graph.materializable_asset_keys if key != dg.AssetKey("llm_schema_py")]
    assert all("Reads" in described[key] and "writes" in described[key] for key in made)


def test_every_job_sensor_and_schedule_is_described(tmp_path: Path) -> None:
    definitions = build_batch(make_project(tmp_path / "project").config).definitions()
    repository = definitions.get_repository_def()
    described = {one.name: one.description for one in repository.get_all_jobs() if not one.name.startswith("__")}
    described |= {one.name: one.description for one in repository.sensor_defs}
    described |= {one.name: one.description for one in repository.schedule_defs}
    assert [name for name, text in described.items() if not text] == []
