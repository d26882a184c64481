"""The progress of a run in Dagster's event log."""

from collections.abc import Callable

import dagster as dg

from llmbatch_assets.resources.storage_faults import telling_storage_faults
from llmbatch_assets.stages.generate import Reporter
from llmbatch_assets.stages.progress import LogReporter
from llmbatch_assets.stages.project import Batch

# A line of Dagster's log is a row of its database: at most one a second, and at least one in five minutes.
DAGSTER_PAUSE_SEC = 1.0
DAGSTER_SILENCE_SEC = 300.0

# Makes whoever watches a run, of the run's context and batch.
ReporterFactory = Callable[[dg.AssetExecutionContext, Batch], Reporter]


def dagster_reporter(say: Callable[[str], None], verbose: int) -> LogReporter:
    """A reporter at a rate that Dagster's event log bears."""
    told = telling_storage_faults()(say)
    return LogReporter(told, verbose, pause=DAGSTER_PAUSE_SEC, silence=DAGSTER_SILENCE_SEC)
