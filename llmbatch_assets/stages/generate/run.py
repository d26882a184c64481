"""One run of the generate stage: connects the engine to files and providers, and writes the manifest."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice

from pydantic import ValidationError

from llmbatch_assets.adapters.files.atomic import log_written, read_json, remove_leftovers, write_json
from llmbatch_assets.adapters.providers.registry import Opener
from llmbatch_assets.adapters.store.claims import claiming
from llmbatch_assets.adapters.store.run_records import IdentityUse, append_run, check_history, keep_provenance, note_use
from llmbatch_assets.domain.item_state import ItemState, state_after
from llmbatch_assets.domain.items.work import GroupContext, WorkItem
from llmbatch_assets.domain.outcome import FailedTry, ItemResult
from llmbatch_assets.domain.plan.selection import Choice, Selection, by_group
from llmbatch_assets.domain.run.attempt_lines import attempt_line
from llmbatch_assets.domain.run.manifest import GenerationManifest, OutputFiles, RunFacts, generation_manifest
from llmbatch_assets.domain.run.progress import Tally
from llmbatch_assets.domain.text import counted
from llmbatch_assets.engine.attempt import AttemptLimits, ItemProcessor, ItemTask
from llmbatch_assets.engine.ports import ChatClient
from llmbatch_assets.engine.retry import RetryingCalls
from llmbatch_assets.engine.stops import OutageLimits, Outages, StopRules
from llmbatch_assets.engine.workers import WorkerPool
from llmbatch_assets.errors import (
    ArtifactError,
    LlmBatchError,
    LocalModelError,
    RunInterruptedError,
    RunPermanentError,
    StopCause,
)
from llmbatch_assets.stages.artifacts import artifact_path
from llmbatch_assets.stages.generate.choice import BatchItems
from llmbatch_assets.stages.generate.clients import CallMeter
from llmbatch_assets.stages.generate.open_files import limit_warning, possible_workers
from llmbatch_assets.stages.generate.progress import GenerateResult, Reporter
from llmbatch_assets.stages.project import Batch, keys_in_use
from llmbatch_assets.stages.runtime import (
    GRACE_SEC,
    holding_interrupts,
    interruptible,
    new_run_id,
    rare_collections,
    utc_now,
)

OnResult = Callable[[ItemResult], None]


@dataclass
class GenerateRun:
    """One run over chosen items of a batch."""

    items: BatchItems
    contexts: Sequence[GroupContext]
    open_client: Opener
    reporter: Reporter
    run_id: str = field(default_factory=new_run_id)

    @property
    def batch(self) -> Batch:
        return self.items.batch

    @cached_property
    def meter(self) -> CallMeter:
        return CallMeter(self.open_client, self.batch, self.run_id, utc_now)

    @cached_property
    def keys(self) -> set[str]:
        """The API keys, which no log line may contain."""
        return keys_in_use(self.batch)

    def choose(self, selection: Selection, *, force: bool) -> Choice:
        """Choose the items to run, and report what the run will do."""
        choice = self.items.choose(selection, force)
        # A run of selected keys counts only those.
        n_done = len(choice.hits) if selection.select == "keys" else self.items.n_skipped(choice)
        self._announce(choice, n_done)
        return choice

    def generate(self, choice: Choice, on_result: OnResult) -> GenerateResult:
        """Generate outputs for the chosen items.

        ``on_result`` is called for each item that was accepted or failed, after its file is on disk.
        """
        remove_leftovers(self.batch.path(folder) for folder in self.batch.layout.folders())
        self._keep_provenance()
        self.items.read_earlier_usage()
        tally = Tally(len(choice.to_run), cached=self.items.n_skipped(choice))
        before, states, failed, started = self.items.states, dict(self.items.states), list[WorkItem](), time.monotonic()
        self.reporter.began(tally)

        def record(result: ItemResult) -> None:
            key = result.item.partition_key
            states[key] = state_after(result, before[key])
            if result.failed is not None:
                failed.append(result.item)
                if result.suspected_outage:
                    # It was not reported before it turned out to be the item's own.
                    n_tries = self.batch.parameters.llm.max_retries
                    self._report_failed_try(FailedTry(result.item, result.failed, result.attempts, n_tries, True))
            on_result(result)
            self.reporter.finished(result)
            self.reporter.advanced(tally)

        with rare_collections():
            error = asyncio.run(self._process(choice, tally, record)) if choice.to_run else None
        elapsed = round(time.monotonic() - started, 2)
        # An impatient user sends a second signal: finish the manifest and the summary first.
        with holding_interrupts():
            manifest = self._write_manifest(choice, states, tally, elapsed, error)
            self.items.store.index.remember()
            result = GenerateResult(
                tally=tally,
                accepted=[key for key, state in states.items() if state == "accepted"],
                failed=[item for item in failed if before[item.partition_key] != "accepted"],
                kept=[item for item in failed if before[item.partition_key] == "accepted"],
                error=error,
                manifest=manifest,
                items=self.items.items,
            )
            self.reporter.ended(result)
        return result

    def _announce(self, choice: Choice, n_done: int) -> None:
        llm, judge_enabled = self.batch.parameters.llm, self.batch.parameters.prompts.judge.enabled
        model = f"offline answers instead of {llm.model_name}" if llm.provider == "offline" else llm.model_name
        self.reporter.say(
            f"Generating {counted(n_done + len(choice.to_run), 'item')} with {model} "
            f"(judge {'on' if judge_enabled else 'off'}, {counted(llm.max_workers, 'worker')})"
            if choice.to_run
            else "Nothing to generate"
        )
        # Whoever materializes items that have an output may expect new ones.
        hint = ". To make them again, set force: true." if choice.hits and not choice.to_run else ""
        self.reporter.say(f"{n_done:,} already done, {len(choice.to_run):,} to run{hint}")
        if choice.to_run:
            self._report_changes(choice)

    def _report_changes(self, choice: Choice) -> None:
        last = self._last_manifest()
        changed = last.meta.changes_since(self.batch.source.identity) if last else []
        if changed:
            pending = sum(state != "accepted" for state in self.items.states.values())
            what = ", ".join(changed)
            self.reporter.say(
                f"{what[0].upper()}{what[1:]} changed since the last run: {counted(pending, 'item')} pending, "
                f"{len(choice.to_run):,} of them in this run. Previous outputs stay on disk."
            )
        elif last and last.outputs and self._rows_changed(choice, last.outputs):
            self.reporter.say(
                "Rows changed since the last run. The other rows of their groups run again, too, because the model sees the "
                "whole group. llmbatch plan shows the reason for each item."
            )

    def _rows_changed(self, choice: Choice, last: OutputFiles) -> bool:
        """Whether items that share a context with other rows are new, and outputs of the last run belong to no item now."""
        new = [item for item in choice.to_run if self.items.states[item.partition_key] == "missing"]
        if not any(item.group_context_id for item in new):
            return False
        return not {f"{self.items.cache_id(item)}.json" for item in self.items.items}.issuperset(last.success_files)

    def _last_manifest(self) -> GenerationManifest | None:
        path = artifact_path(self.batch, "llm_outputs")
        try:
            return GenerationManifest.model_validate(read_json(path)) if path.is_file() else None
        except (ArtifactError, ValidationError):
            # It only serves a message, and this run replaces it.
            return None

    def _keep_provenance(self) -> None:
        folder = self.batch.path(self.batch.layout.provenance)
        keep_provenance(folder, self.batch.provenance())
        note_use(folder, IdentityUse(utc_now(), self.batch.source.identity.sha, self.batch.item_settings_sha()))

    async def _process(self, choice: Choice, tally: Tally, on_result: OnResult) -> LlmBatchError | None:
        llm, max_items = self.batch.parameters.llm, self.batch.parameters.budget.max_items
        rules, store = StopRules(llm.max_failures, llm.max_failure_rate), self.items.store
        try:
            store.check_room()
            check_history(self.batch.path(self.batch.layout.run_history))
            workers = self._possible_workers(min(llm.max_workers, tally.total))
            outages = Outages(
                OutageLimits.of(llm.give_up_after, workers, stop_on_same_refusal=llm.stop_on_same_refusal)
            )
            with interruptible(self._report_grace_period) as stopped:
                calls = RetryingCalls(llm.transport_retries, stopped, outages)
                async with store.commit.in_groups(), self.meter.clients(stopped) as (generator, judge):
                    process = self._processor(generator, judge, calls).process
                    with claiming(self.batch.path(self.batch.layout.claims)) as claims:
                        pool = WorkerPool(
                            process, workers, tally, stopped, on_result, claims, rules, outages, store.save_failure
                        )
                        error = await pool.process_all(islice(self._tasks(choice.to_run), max_items or None))
                        return error or _max_items_error(len(choice.to_run), max_items)
        except (RunPermanentError, LocalModelError, RunInterruptedError) as error:
            return error

    def _possible_workers(self, max_workers: int) -> int:
        # The judge's client has connections of its own, which stay open between two calls.
        n_connections = 2 if self.batch.parameters.prompts.judge.enabled else 1
        workers = possible_workers(max_workers, n_connections)
        if line := limit_warning(max_workers, workers):
            self.reporter.say(line)
        return workers

    def _report_grace_period(self) -> None:
        if n_calls := self.meter.calls_in_flight:
            self.reporter.say(
                f"interrupted; waiting up to {GRACE_SEC:g} s for {counted(n_calls, 'call')} in flight; press Ctrl-C again "
                "to stop now"
            )

    def _processor(self, generator: ChatClient, judge: ChatClient | None, calls: RetryingCalls) -> ItemProcessor:
        parameters, llm = self.batch.parameters, self.batch.parameters.llm
        return ItemProcessor(
            generator=generator,
            judge=judge,
            store=self.items.store,
            conversations=self.batch.conversations,
            source=self.batch.source,
            limits=AttemptLimits(llm.max_retries, llm.runner_max_retries, parameters.judge.min_score),
            now=utc_now,
            calls=calls,
            on_failed_try=self._report_failed_try,
        )

    def _report_failed_try(self, failed: FailedTry) -> None:
        self.reporter.attempt_failed(attempt_line(failed, self.keys))

    def _tasks(self, items: Sequence[WorkItem]) -> Iterator[ItemTask]:
        texts = {context.group_context_id: context.context for context in self.contexts}
        for item in by_group(items):
            yield ItemTask(
                item,
                None if item.group_context_id is None else texts[item.group_context_id],
                self.items.cache_id(item),
                find_existing=partial(self.items.find_existing, item, forced=self.items.is_forced(item)),
                find_differently_judged=partial(self.items.find_differently_judged, item),
            )

    def _write_manifest(
        self,
        choice: Choice,
        states: dict[str, ItemState],
        tally: Tally,
        elapsed: float,
        error: LlmBatchError | None,
    ) -> GenerationManifest:
        facts = RunFacts(
            generated_at_utc=utc_now(),
            elapsed_sec=elapsed,
            n_cache_skipped=self.items.n_skipped(choice),
            n_to_run=len(choice.to_run),
            usage=self.meter.total.summary(),
            pacing=self.meter.pacing,
            structured_output=self.meter.structured_output,
            causes=tally.causes,
            stopped_by=getattr(error, "cause", None),
        )
        files = _output_files(self.items, states)
        manifest = generation_manifest(self.batch.parameters, self.batch.source, states, facts, files)
        path = artifact_path(self.batch, "llm_outputs")
        log_written(self.batch.shown(path), write_json(path, manifest))
        if choice.to_run:
            record = manifest.run_record(self.run_id, n_accepted=tally.accepted, n_failed=tally.failed)
            append_run(self.batch.path(self.batch.layout.run_history), record)
        return manifest


def _output_files(items: BatchItems, states: dict[str, ItemState]) -> OutputFiles:
    store, layout = items.store, items.batch.layout
    accepted = [items.cache_id(item) for item in items.items if states[item.partition_key] == "accepted"]
    failed = [items.cache_id(item) for item in items.items if states[item.partition_key].startswith("failed")]
    last_failures = [store.index.failure_path(cache_id, store.next_attempt(cache_id) - 1).name for cache_id in failed]
    return OutputFiles(
        outputs_dir=str(layout.llm_outputs),
        failures_dir=str(layout.llm_failures),
        success_files=[f"{cache_id}.json" for cache_id in accepted],
        failure_files=last_failures if store.keep_failures else [],
    )


def _max_items_error(n_to_run: int, max_items: int) -> RunPermanentError | None:
    if not max_items or n_to_run <= max_items:
        return None
    return RunPermanentError(
        StopCause.BUDGET,
        f"budget reached: {counted(max_items, 'item')} done, {n_to_run - max_items:,} left. "
        "Raise budget.max_items or run again to continue.",
    )
