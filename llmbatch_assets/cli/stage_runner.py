"""The stages of a run, each one Dagster run in this process."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.utils import make_new_run_id
from dagster._utils.interrupts import capture_interrupts

from llmbatch_assets.assets.batch import STAGES, build_batch
from llmbatch_assets.cli.progress import TerminalReporter, tell
from llmbatch_assets.cli.session import EXIT_FAILED_ITEMS, EXIT_STOPPED, use_project_instance
from llmbatch_assets.cli.signals import SignalsNoted
from llmbatch_assets.domain.cost import shown
from llmbatch_assets.domain.manifest import what_changed
from llmbatch_assets.domain.text import counted
from llmbatch_assets.errors import RunInterruptedError
from llmbatch_assets.resources.instance import open_instance
from llmbatch_assets.resources.runs import close_orphans, process_tags
from llmbatch_assets.resources.storage_faults import telling_storage_faults
from llmbatch_assets.stages.export import notes_on_export
from llmbatch_assets.stages.generate import Outcome
from llmbatch_assets.stages.project import Batch, BatchFile


class StageRunner:
    """Runs stages of one batch and tells how they went."""

    def __init__(self, batch_file: BatchFile, batch: Batch) -> None:
        self._batch_file = batch_file
        self._batch = batch
        self._reporter = TerminalReporter(batch.parameters.cache.verbose)
        self._built = build_batch(batch_file, reporter=lambda _context, _batch: self._reporter)
        self._definitions = self._built.definitions()
        # The signal that ended the run, 0 if none did.
        self._interrupted = 0
        self._unpublished = False

    @property
    def _dagster_log_level(self) -> str:
        # What a user has to know of a run is told by the reporter; Dagster's log has a dozen lines for each.
        return "DEBUG" if self._batch.parameters.run.log_level == "DEBUG" else "CRITICAL"

    def run(self, assets: Sequence[str], config: Mapping[str, Mapping[str, object]]) -> int:
        """Run the assets stage by stage, with their configuration by name; gives the exit code."""
        use_project_instance(self._batch.root)
        with telling_storage_faults(), _closing_whole(open_instance()) as instance:
            _tell_orphans(close_orphans(instance))
            for stage, members in STAGES.items():
                chosen = [asset for asset in members if asset in assets]
                if stage == "publish" and self._reporter.outcome is not None:
                    self._tell_changes()
                if chosen:
                    self._stage(instance, stage, chosen, {name: config[name] for name in chosen if name in config})
                if self._interrupted:
                    break
        self._summary(assets)
        code = _exit_code(self._reporter.outcome, self._interrupted)
        # Nothing was published: a script must not go on as if it were.
        return code if self._interrupted or not self._unpublished else EXIT_STOPPED

    def _stage(
        self,
        instance: dg.DagsterInstance,
        stage: str,
        assets: Sequence[str],
        config: Mapping[str, Mapping[str, object]],
    ) -> None:
        names = self._built.names
        tell(f"{stage}: {', '.join(assets)}", style="bold")
        job = self._definitions.resolve_job_def(names.own(stage))
        noted, run_id = SignalsNoted(), make_new_run_id()
        try:
            job.execute_in_process(
                instance=instance,
                run_id=run_id,
                tags=process_tags(run_id),
                asset_selection=[names.key(asset) for asset in assets],
                run_config={
                    "loggers": {"console": {"config": {"log_level": self._dagster_log_level}}},
                    "ops": {names.own(asset): {"config": dict(values)} for asset, values in config.items()},
                },
            )
        except dg.Failure as failure:
            self._unpublished = stage == "publish"
            tell(failure.description or "failed", style="red")
        except (KeyboardInterrupt, DagsterExecutionInterruptedError) as ended:
            self._interrupted = _signal_behind(ended) or noted.last() or signal.SIGINT
            tell("interrupted; what was accepted is kept, and the next run goes on from there", style="red")
        finally:
            noted.close()
            self._reporter.close()

    def _tell_changes(self) -> None:
        """Say so where somebody changed what is asked while outputs were made: the export is of what is asked now."""
        made = self._reporter.outcome.manifest["meta"] if self._reporter.outcome else {}
        changed = what_changed(made, self._batch_file.load().source.identity)
        if changed:
            tell(
                f"{', '.join(changed)} changed while the run went on: export and report hold outputs of what is asked now; "
                "run again to make the rest",
                style="red",
            )

    def _summary(self, assets: Sequence[str]) -> None:
        layout, parameters = self._batch.layout, self._batch.parameters
        if self._reporter.outcome is not None:
            tell(_counted(self._reporter.outcome), style="bold")
            tell(f"  usage     {_spent(self._reporter.outcome)}")
            tell(f"  outputs   {layout.llm_outputs}/")
            if self._reporter.outcome.tally.failed:
                tell(
                    f"  failures  {layout.llm_failures}/ (llmbatch status tells the causes, llmbatch show ROW one of them)"
                )
        if self._interrupted or self._unpublished:
            return
        if "export" in assets:
            tell(f"  export    {', '.join(str(layout.export(name)) for name in parameters.outputs.formats)}")
            for note in notes_on_export(self._batch):
                tell(f"            {note}")
        if "report" in assets and parameters.report.enabled:
            tell(f"  report    {layout.report('html' if parameters.report.write_html else 'md')}")
        tell("  in Dagster: llmbatch ui")
        if parameters.llm.provider == "offline":
            tell("made-up answers: export and report hold them until the next run with a model", style="bold")


def _tell_orphans(closed: Sequence[str]) -> None:
    if closed:
        tell(
            f"closed {counted(len(closed), 'earlier run')}, of which the process is gone; what was accepted is kept: {', '.join(closed)}"
        )


@contextmanager
def _closing_whole(instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """The instance, whose closing a second signal does not cut in two."""
    try:
        yield instance
    finally:
        with capture_interrupts():
            instance.dispose()


def _counted(outcome: Outcome) -> str:
    counts, found = outcome.manifest["counts"], outcome.tally.found
    others = f", {found:,} by another run" if found else ""
    return (
        f"{counts['n_success']:,} of {counted(counts['n_total'], 'item')} accepted ({outcome.tally.accepted:,} new, "
        f"{counts['n_cache_skipped']:,} from cache{others}), {counts['n_fail']:,} failed, "
        f"{counts['n_not_attempted']:,} not attempted"
    )


def _spent(outcome: Outcome) -> str:
    usage, refused = outcome.manifest["usage"], outcome.manifest["meta"]["pacing"]["rate_limited"]
    in_vain = f" ({refused:,} refused as too many at a time)" if refused else ""
    return (
        f"{counted(usage['requests'], 'call')}{in_vain}, {usage['input_tokens']:,} input and {usage['output_tokens']:,} output tokens, "
        f"{shown(usage['cost_usd'], usage['n_unknown_cost'])}"
    )


def _signal_behind(ended: BaseException) -> int:
    """The signal that an interruption says it came from; 0 where it does not say."""
    link: BaseException | None = ended
    while link is not None:
        if isinstance(link, RunInterruptedError):
            return link.signal_number
        link = link.__cause__ or link.__context__
    return 0


def _exit_code(outcome: Outcome | None, interrupted: int) -> int:
    fault = outcome.fault if outcome else None
    if interrupted:
        return 128 + (fault.signal_number if isinstance(fault, RunInterruptedError) else interrupted)
    if outcome is None:
        return 0
    if fault is not None:
        return EXIT_STOPPED
    return EXIT_FAILED_ITEMS if outcome.tally.failed or outcome.manifest["counts"]["n_fail"] else 0
