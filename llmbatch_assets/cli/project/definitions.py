"""The definitions that Dagster loads: one batch for each file in configs/. Add assets, jobs and schedules of your own."""

from llmbatch_assets import defs

__all__ = ["defs"]
