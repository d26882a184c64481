"""Dagster events about work items."""
