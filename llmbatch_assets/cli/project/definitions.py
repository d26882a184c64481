"""What Dagster finds here: every file in configs/ is a batch. Assets, jobs and schedules of your own can be added."""

from llmbatch_assets.definitions import defs

__all__ = ["defs"]
