"""A Dagster project with a table, a batch that reads it, and an asset that uses the outputs. Tables are in DuckDB."""

import os
from pathlib import Path

import dagster as dg
import pandas as pd
from dagster_duckdb_pandas import DuckDBPandasIOManager

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


batch = build_batch(
    PROJECT / "configs/parameters.yaml", input_asset=tickets, key_prefix="support", owners=["team:support"]
)


@dg.asset(ins={"export": dg.AssetIn(key=batch.names.key("export"))})
def urgent_tickets(export: pd.DataFrame) -> pd.DataFrame:
    """The tickets that the model classified as urgent, the oldest first."""
    return export.loc[export["urgent"], ["ticket", "opened", "reason"]].sort_values("opened")


defs = dg.Definitions.merge(
    dg.Definitions(
        assets=[tickets, urgent_tickets],
        resources={"io_manager": DuckDBPandasIOManager(database=os.environ.get("WAREHOUSE", "warehouse.duckdb"))},
    ),
    batch.definitions(),
)
