"""Whether the checks on the outputs let them leave the house."""

from collections.abc import Iterable

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

MADE = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


def refuse_unchecked(instance: dg.DagsterInstance, asset_key: dg.AssetKey, checks: Iterable[str], repair: str) -> None:
    """Raise ``Failure`` where one of the asset's checks has failed for good, or was never made.

    The latest evaluation counts, whichever run made it; a failed check that only warns stops nothing. ``repair`` is the
    command that makes the checks again.
    """
    found = (_problem(instance, dg.AssetCheckKey(asset_key, name)) for name in checks)
    problems = [problem for problem in found if problem]
    if problems:
        told = "; ".join(problems)
        raise dg.Failure(
            f"not exported, since checks.block_export is set: {told}. Mend what is behind it and run {repair}, "
            "or unset checks.block_export",
            metadata={"n_checks": len(problems)},
            allow_retries=False,
        )


def _problem(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> str:
    # A run that was interrupted has planned its checks and made none: what was found before it holds.
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=MADE)
    event = records[0].event if records else None
    made = event.dagster_event.asset_check_evaluation_data if event and event.dagster_event else None
    if made is None:
        return f"{key.name} has not been checked yet"
    if made.passed or made.severity is not dg.AssetCheckSeverity.ERROR:
        return ""
    return f"{key.name} failed ({made.description})"
