"""Dagster resources, storage and events that the assets use."""
