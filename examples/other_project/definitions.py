"""A Dagster project with a table, a batch that reads it, and an asset that uses the outputs."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from llmbatch_assets import build_batch

PROJECT = Path(__file__).parent


@dg.asset
def tickets() -> pd.DataFrame:
    """Support tickets, for example from a warehouse."""
    return pd.DataFrame(
        {
            "ticket": [101, 102, 103],
            "opened": pd.to_datetime(["2026-01-05", "2026-01-06", None]),
            "text": ["The login page is blank.", "How do I change my address?", "Everything is down!"],
        }
    )


batch = build_batch(PROJECT / "configs/parameters.yaml", input_asset=dg.AssetKey("tickets"), key_prefix=["support"])


@dg.asset(ins={"export": dg.AssetIn(key=batch.names.key("export"))})
def urgent_tickets(export: dict[str, Any]) -> list[str]:
    """The tickets that the model classified as urgent."""
    lines = (PROJECT / export["files"]["jsonl"]).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [record["input"]["ticket"] for record in records if record["parsed"]["urgent"]]


defs = dg.Definitions.merge(dg.Definitions(assets=[tickets, urgent_tickets]), batch.definitions())
