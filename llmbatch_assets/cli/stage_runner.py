"""Run the stages of a batch, each as one Dagster run in this process."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.utils import make_new_run_id
from dagster._utils.interrupts import capture_interrupts

from llmbatch_assets.assets import STAGES
from llmbatch_assets.assets.batch import build_batch
from llmbatch_assets.cli.session import EXIT_FAILED_ITEMS, EXIT_STOPPED, use_project_instance
from llmbatch_assets.cli.terminal import TerminalReporter, report, report_files, report_no_results
from llmbatch_assets.domain.text import counted
from llmbatch_assets.domain.usage import format_cost
from llmbatch_assets.errors import LlmBatchError, RunInterruptedError
from llmbatch_assets.resources.instance import open_instance, translating_storage_errors
from llmbatch_assets.resources.record_marks import marking_records
from llmbatch_assets.resources.runs import close_orphans, dagster_reporter, process_tags
from llmbatch_assets.stages.generate.progress import GenerateResult, Reporter, ReporterGroup
from llmbatch_assets.stages.project import Batch, BatchFile
from llmbatch_assets.stages.unchanged.since_last_run import SinceLastRun

# Values of an asset's configuration, by the asset's name.
RunConfig = Mapping[str, Mapping[str, object]]


class SignalRecorder:
    """Records signals until it is closed, without replacing their handlers.

    Dagster's handlers raise the same exception for SIGTERM and Ctrl-C. Python writes the number of each signal to the
    wakeup descriptor before it calls a handler.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._previous = -1
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._previous = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def last(self) -> int:
        """The number of the last SIGINT or SIGTERM; 0 if none was received."""
        try:
            numbers = self._reader.recv(4096)
        except BlockingIOError:
            return 0
        return next((number for number in reversed(numbers) if number in (signal.SIGINT, signal.SIGTERM)), 0)

    def close(self) -> None:
        if self._is_main:
            signal.set_wakeup_fd(self._previous)
        self._reader.close()
        self._writer.close()


class StageRunner:
    """Runs the stages of one batch and prints its first ``n_shown`` results and the summary.

    Of the prepare stage, a whole run does only what has changed since the ``last_run``.
    """

    def __init__(self, batch_file: BatchFile, last_run: SinceLastRun, n_shown: int = 0) -> None:
        self._batch_file = batch_file
        self._last_run = last_run
        self._batch = last_run.batch
        self._reporter = TerminalReporter(self._batch.parameters.cache.verbose, n_shown)
        self._n_shown = n_shown
        self._built = build_batch(batch_file, reporter=self._observe)
        self._definitions = self._built.definitions()
        # The signal that ended the run; 0 if none did.
        self._interrupted = 0
        self._publish_failed = False

    def run_stages(self, assets: Sequence[str], config: RunConfig) -> int:
        """Run the assets stage by stage and return the exit code."""
        use_project_instance(self._batch.root)
        with translating_storage_errors(), _disposing_uninterrupted(open_instance()) as instance:
            _report_orphans(close_orphans(instance))
            with marking_records(instance, self._built.names.key("llm_outputs")) as mark:
                self._run_each(instance, assets, config)
                self._last_run.save(mark, n_accepted=self._n_accepted if _is_whole(assets) else None)
        self._report_summary(assets)
        return self._exit_code()

    @property
    def _n_accepted(self) -> int | None:
        """The number of items, if each has an output and export and report are made; else None."""
        outcome = self._reporter.outcome
        if outcome is None or self._exit_code():
            return None
        counts = outcome.manifest.counts
        return counts.n_total if counts.n_success == counts.n_total else None

    def _run_each(self, instance: dg.DagsterInstance, assets: Sequence[str], config: RunConfig) -> None:
        for stage, members in STAGES.items():
            chosen = [asset for asset in members if asset in assets]
            if stage == "prepare" and _is_whole(assets):
                chosen = self._last_run.due(chosen)
            if stage == "publish":
                self._last_run.note_generated()
                self._report_changes()
            if chosen:
                self._run_stage(instance, stage, chosen, {name: config[name] for name in chosen if name in config})
            if stage == "generate":
                # At once: export and report of a large table take seconds.
                self._show_results()
            if self._interrupted:
                break
            if stage == "prepare" and _is_whole(assets):
                self._last_run.note_prepared()

    def _observe(self, context: dg.OpExecutionContext | dg.AssetExecutionContext, batch: Batch) -> Reporter:
        return ReporterGroup([self._reporter, dagster_reporter(context, batch)])

    def _show_results(self) -> None:
        outcome = self._reporter.outcome
        if outcome is None or not self._n_shown:
            return
        if outcome.tally.total:
            # The schema may have been written after the command was started.
            self._reporter.show_results(self._batch_file.load())
        else:
            report_no_results(self._batch)

    def _run_stage(self, instance: dg.DagsterInstance, stage: str, assets: Sequence[str], config: RunConfig) -> None:
        names = self._built.names
        report(f"{stage}: {', '.join(assets)}", style="bold")
        generates = stage == "generate"
        job = self._definitions.resolve_job_def(names.own("generate_pending" if generates else stage))
        signals, run_id = SignalRecorder(), make_new_run_id()
        try:
            job.execute_in_process(
                instance=instance,
                run_id=run_id,
                tags=process_tags(run_id),
                asset_selection=None if generates else [names.key(asset) for asset in assets],
                run_config={
                    "loggers": {"console": {"config": {"log_level": self._dagster_log_level}}},
                    "ops": {
                        names.own("generate_items" if generates else asset): {"config": dict(values)}
                        for asset, values in config.items()
                    },
                },
            )
        except dg.Failure as failure:
            if isinstance(failure.__context__, LlmBatchError):
                # Our own errors have exit codes of their own.
                raise failure.__context__ from None
            self._publish_failed = stage == "publish"
            report(failure.description or "failed", style="red")
        except (KeyboardInterrupt, DagsterExecutionInterruptedError) as ended:
            self._interrupted = _signal_behind(ended) or signals.last() or signal.SIGINT
            report("interrupted; accepted outputs are kept, and the next run continues from here", style="red")
        finally:
            signals.close()
            self._reporter.close()

    @property
    def _dagster_log_level(self) -> str:
        # The reporter prints what users need; Dagster would log a dozen lines for each of its own.
        return "DEBUG" if self._batch.parameters.run.log_level == "DEBUG" else "CRITICAL"

    def _report_changes(self) -> None:
        """Warn if somebody changed the prompt, schema or settings while outputs were generated."""
        if self._reporter.outcome is None:
            return
        changed = self._reporter.outcome.manifest.meta.changes_since(self._batch_file.load().source.identity)
        if changed:
            report(
                f"{', '.join(changed)} changed during the run: export and report hold only outputs made with the new "
                "settings; run again to generate the rest",
                style="red",
            )

    def _report_summary(self, assets: Sequence[str]) -> None:
        layout, outcome = self._batch.layout, self._reporter.outcome
        if outcome is not None:
            report(_item_counts(outcome), style="bold")
            report(f"  usage     {_usage(outcome)}")
            report(f"  outputs   {layout.llm_outputs}/")
            if outcome.tally.failed:
                hint = "causes: llmbatch status; details of one: llmbatch show ROW"
                report(f"  failures  {layout.llm_failures}/ ({hint})")
        if self._interrupted and outcome is not None and "export" in assets:
            report("  export    not updated; to update it: llmbatch run --select export,report")
        if not self._interrupted and not self._publish_failed:
            report_files(self._batch, assets)

    def _exit_code(self) -> int:
        outcome = self._reporter.outcome
        error = outcome.error if outcome else None
        if self._interrupted:
            return 128 + (error.signal_number if isinstance(error, RunInterruptedError) else self._interrupted)
        # A script must not continue as if there were an export.
        if error is not None or self._publish_failed:
            return EXIT_STOPPED
        return EXIT_FAILED_ITEMS if outcome and (outcome.tally.failed or outcome.manifest.counts.n_fail) else 0


def _is_whole(assets: Sequence[str]) -> bool:
    """Return whether a run is for all assets."""
    return set(assets) == {asset for members in STAGES.values() for asset in members}


def _report_orphans(closed: Sequence[str]) -> None:
    if closed:
        runs = counted(len(closed), "earlier run")
        report(f"closed {runs} whose process is gone (accepted outputs are kept): {', '.join(closed)}")


@contextmanager
def _disposing_uninterrupted(instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """Dispose of the instance at the end; a second signal does not interrupt that."""
    try:
        yield instance
    finally:
        with capture_interrupts():
            instance.dispose()


def _item_counts(outcome: GenerateResult) -> str:
    counts, found = outcome.manifest.counts, outcome.tally.found
    others = f", {found:,} by another run" if found else ""
    return (
        f"{counts.n_success:,} of {counted(counts.n_total, 'item')} accepted ({outcome.tally.accepted:,} new, "
        f"{counts.n_cache_skipped:,} from cache{others}), {counts.n_fail:,} failed, "
        f"{counts.n_not_attempted:,} not attempted"
    )


def _usage(outcome: GenerateResult) -> str:
    usage, refused = outcome.manifest.usage, outcome.manifest.meta.pacing.rate_limited
    rate_limited = f" ({refused:,} hit a rate limit)" if refused else ""
    return (
        f"{counted(usage.requests, 'call')}{rate_limited}, {usage.input_tokens:,} input and "
        f"{usage.output_tokens:,} output tokens, {format_cost(usage.cost_usd, usage.n_unknown_cost)}"
    )


def _signal_behind(ended: BaseException) -> int:
    """The signal that caused an interruption; 0 if unknown."""
    link: BaseException | None = ended
    while link is not None:
        if isinstance(link, RunInterruptedError):
            return link.signal_number
        link = link.__cause__ or link.__context__
    return 0
