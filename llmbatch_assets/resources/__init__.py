"""Dagster glue: what the assets are handed."""
