"""The generate stage of one batch: introduces the engine to files and providers."""

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

from llmbatch_assets.adapters.files.atomic import log_written, read_json, remove_leftovers, write_json
from llmbatch_assets.adapters.providers.registry import Opener
from llmbatch_assets.adapters.store.claims import claiming
from llmbatch_assets.adapters.store.ledger import append_run
from llmbatch_assets.adapters.store.outputs import FileStore
from llmbatch_assets.adapters.store.provenance import IdentityUse, earlier_identities, keep_provenance, note_use
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import GroupContext, WorkItem
from llmbatch_assets.domain.manifest import (
    RunFacts,
    execution_mode,
    generation_manifest,
    what_changed,
)
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.plan.selection import Choice, Selection, State, by_group, choose
from llmbatch_assets.domain.run_history import run_record
from llmbatch_assets.domain.text import counted
from llmbatch_assets.engine.attempt import ItemResult, Job, Limits, Workbench
from llmbatch_assets.engine.calls import Calls
from llmbatch_assets.engine.ports import ChatClient
from llmbatch_assets.engine.stop_rules import StopRules
from llmbatch_assets.engine.tally import Tally
from llmbatch_assets.engine.workers import BatchRun
from llmbatch_assets.errors import ArtifactError, LlmBatchError, LocalModelError, RunInterruptedError, RunPermanentError
from llmbatch_assets.stages.artifacts import artifact_path, output_store
from llmbatch_assets.stages.clients import Meter
from llmbatch_assets.stages.garbage import rare_collections
from llmbatch_assets.stages.interruption import holding_interrupts, interruptible
from llmbatch_assets.stages.project import Batch


class Outcome(NamedTuple):
    """How a run of the generate stage ended.

    ``failed`` are the items of this run that have no output now, ``standing`` those whose regeneration failed and
    whose earlier output still stands; ``accepted`` the partition keys of all items of the batch that have one.
    """

    tally: Tally
    accepted: list[str]
    failed: list[WorkItem]
    standing: list[WorkItem]
    fault: LlmBatchError | None
    manifest: dict[str, Any]

    def facts(self) -> dict[str, int | float]:
        """What the run did and what it cost, as numbers. An unknown cost is none."""
        seconds = self.manifest["meta"]["elapsed_sec"]
        numbers = {
            "accepted": self.tally.accepted,
            "failed": self.tally.failed,
            "cache_hits": self.manifest["counts"]["n_cache_skipped"] + self.tally.found,
            "items_per_second": round(self.tally.done / seconds, 3) if seconds else None,
            **self.manifest["usage"],
        }
        return {name: value for name, value in numbers.items() if value is not None}


class Reporter(Protocol):
    """Whoever watches a run."""

    def say(self, line: str) -> None:
        """A line for people."""

    def began(self, tally: Tally) -> None:
        """Items are worked on from now on; the tally is the run's own and goes on with it."""

    def advanced(self, tally: Tally) -> None:
        """The counts have changed."""

    def ended(self, outcome: Outcome) -> None:
        """The run is over."""


def new_run_id() -> str:
    """A name for a run that Dagster has none for."""
    return str(uuid.uuid4())


def utc_now() -> str:
    """The time of day as artifacts write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Generation:
    """One run of the generate stage over some of the items of a batch."""

    batch: Batch
    items: Sequence[WorkItem]
    contexts: Sequence[GroupContext]
    open_client: Opener
    reporter: Reporter
    run_id: str = field(default_factory=new_run_id)

    @cached_property
    def meter(self) -> Meter:
        return Meter(self.open_client, self.batch, self.run_id, utc_now)

    @cached_property
    def store(self) -> FileStore:
        return output_store(self.batch)

    @cached_property
    def states(self) -> dict[str, State]:
        """How every item of the batch stood at the start, by partition key."""
        return {item.partition_key: self.store.index.state(self.cache_id(item)) for item in self.items}

    def cache_id(self, item: WorkItem) -> str:
        return self.batch.source.identity.cache_id(item.work_id)

    def choose(self, selection: Selection, force: bool) -> Choice:
        """The items to run. ``force`` marks the selected ones for regeneration, which outlives this run."""
        if force or self.batch.parameters.cache.force:
            everything = selection._replace(select="all") if selection.select == "pending" else selection
            choice = choose(self.items, self.states, everything, lambda item: True)
            self.store.force(self.cache_id(item) for item in choice.to_run)
        else:
            choice = choose(self.items, self.states, selection, self._is_forced)
        self._tell_pre_scan(choice)
        return choice

    def _is_forced(self, item: WorkItem) -> bool:
        return not self.batch.parameters.cache.enabled or self.store.is_forced(self.cache_id(item))

    def _tell_pre_scan(self, choice: Choice) -> None:
        parameters, total = self.batch.parameters, len(self.items)
        llm, cache, judge = parameters.llm, parameters.cache, parameters.prompts.judge
        self.reporter.say(
            f"Start: n_items={total} judge={judge.enabled} cache={cache.enabled} force={cache.force} "
            f"model={llm.model_name} temp={llm.temperature} retries={llm.max_retries} workers={llm.max_workers} "
            f"verbose={cache.verbose}" + ("" if llm.provider == "openai" else f" provider={llm.provider}")
        )
        self.reporter.say(
            f"Pre-scan: cache_skips={self._skipped(choice)} will_run={len(choice.to_run)}/{total} "
            f"(mode={execution_mode(llm.max_workers)})"
        )
        changed = what_changed(self._last_meta(), self.batch.source.identity)
        if choice.to_run and changed:
            pending = sum(state != "accepted" for state in self.states.values())
            self.reporter.say(
                f"Changed since the last run: {', '.join(changed)}. That makes {counted(pending, 'item')} pending, of which this run "
                f"takes {len(choice.to_run)}; the outputs of before stay on disk"
            )

    def _last_meta(self) -> dict[str, Any]:
        path = artifact_path(self.batch, "llm_outputs")
        try:
            return dict(read_json(path)["meta"]) if path.is_file() else {}
        except (ArtifactError, KeyError, TypeError, ValueError):
            # It is only told from; this run writes it anew.
            return {}

    @cached_property
    def accepted_items(self) -> list[WorkItem]:
        """The items that had an accepted output at the start."""
        return [item for item in self.items if self.states[item.partition_key] == "accepted"]

    def _skipped(self, choice: Choice) -> int:
        running = {item.partition_key for item in choice.to_run}
        return sum(item.partition_key not in running for item in self.accepted_items)

    def output(self, item: WorkItem) -> AcceptedOutput:
        """The accepted output of an item that has one."""
        output = self.store.index.output(self.cache_id(item))
        if output is None:
            raise ArtifactError(f"{self.store.index.output_path(self.cache_id(item))} has gone since it was looked at")
        return output

    def is_made(self, item: WorkItem) -> bool:
        """Whether the item has an accepted output now."""
        return self.store.index.output(self.cache_id(item)) is not None

    def scores(self, keys: Collection[str]) -> list[float]:
        """The judge's scores of the accepted outputs of these partition keys; without a judge there are none."""
        if not self.batch.source.identity.judge_enabled:
            return []
        wanted = set(keys)
        judged = (self.output(item).judge or {} for item in self.items if item.partition_key in wanted)
        return [float(judge["score"]) for judge in judged if isinstance(judge.get("score"), int | float)]

    def run(self, choice: Choice, on_accepted: Callable[[WorkItem, AcceptedOutput, bool], None]) -> Outcome:
        """Work on the chosen items.

        ``on_accepted`` is called for each accepted one, after its file is on disk, and told whether another run made it.
        """
        remove_leftovers(self.batch.path(folder) for folder in self.batch.layout.folders())
        self._keep_provenance()
        tally = Tally(len(choice.to_run), cached=self._skipped(choice))
        states, not_made, started = dict(self.states), list[WorkItem](), time.monotonic()
        self.reporter.began(tally)

        def on_result(result: ItemResult) -> None:
            key = result.item.partition_key
            states[key] = _state(result, self.states[key])
            if result.failed is not None:
                not_made.append(result.item)
            if result.accepted is not None:
                on_accepted(result.item, result.accepted, result.found)
            self.reporter.advanced(tally)

        with rare_collections():
            fault = asyncio.run(self._run(choice, tally, on_result)) if choice.to_run else None
        elapsed = round(time.monotonic() - started, 2)
        standing = [item for item in not_made if self.states[item.partition_key] == "accepted"]
        failed = [item for item in not_made if self.states[item.partition_key] != "accepted"]
        accepted = [key for key, state in states.items() if state == "accepted"]
        # Whoever is impatient sends a second signal: the run tells how far it came even so.
        with holding_interrupts():
            manifest = self._write_manifest(choice, states, tally, elapsed, fault)
            outcome = Outcome(tally, accepted, failed, standing, fault, manifest)
            self._tell_end(outcome)
        return outcome

    def _keep_provenance(self) -> None:
        folder = self.batch.path(self.batch.layout.provenance)
        keep_provenance(folder, self.batch.provenance())
        note_use(folder, IdentityUse(utc_now(), self.batch.source.identity.sha, self.batch.item_settings_sha()))

    def _tell_end(self, outcome: Outcome) -> None:
        counts, meta = outcome.manifest["counts"], outcome.manifest["meta"]
        self.reporter.say(
            f"Completion: ok={counts['n_success']} fresh_ok={outcome.tally.accepted} fail={counts['n_fail']} "
            f"cache_skips={counts['n_cache_skipped']} elapsed={meta['elapsed_sec']:.2f}s workers={meta['max_workers']}"
        )
        self.reporter.ended(outcome)

    async def _run(self, choice: Choice, tally: Tally, on_result: Callable[[ItemResult], None]) -> LlmBatchError | None:
        llm = self.batch.parameters.llm
        rules = StopRules(llm.max_failures, llm.max_failure_rate)
        try:
            self.store.check_room()
            with interruptible() as stopped:
                async with self.store.commit.in_process(), self.meter.clients(stopped) as (generator, judge):
                    bench = self._workbench(generator, judge, stopped)
                    with claiming(self.batch.path(self.batch.layout.claims)) as claims:
                        run = BatchRun(bench.work_on, llm.max_workers, tally, stopped, on_result, claims, rules)
                        most = self.batch.parameters.budget.max_items
                        fault = await run.run(islice(self._jobs(choice.to_run), most or None))
                        return fault or _left_over(len(choice.to_run), most)
        except (RunPermanentError, LocalModelError, RunInterruptedError) as fault:
            return fault

    def _workbench(self, generator: ChatClient, judge: ChatClient | None, stopped: asyncio.Event) -> Workbench:
        parameters, llm = self.batch.parameters, self.batch.parameters.llm
        return Workbench(
            generator=generator,
            judge=judge,
            store=self.store,
            conversations=self.batch.conversations,
            source=self.batch.source,
            limits=Limits(llm.max_retries, llm.runner_max_retries, parameters.judge.min_score),
            now=utc_now,
            calls=Calls(llm.transport_retries, stopped),
        )

    def _jobs(self, items: Sequence[WorkItem]) -> Iterator[Job]:
        texts = {context.group_context_id: context.context for context in self.contexts}
        for item in by_group(items):
            yield Job(
                item,
                None if item.group_context_id is None else texts[item.group_context_id],
                self.cache_id(item),
                settled=partial(self._settled, item, forced=self._is_forced(item)),
                earlier=partial(self._judged_before, item),
            )

    def _settled(self, item: WorkItem, *, forced: bool) -> AcceptedOutput | None:
        """The output, where another run has made it since this one looked."""
        if forced and self._is_forced(item):
            return None
        return self.store.index.output(self.cache_id(item))

    def _judged_before(self, item: WorkItem) -> AcceptedOutput | None:
        """An output that differs from the one wanted only in who judged it; not where a new one was asked for."""
        if self._is_forced(item):
            return None
        found = (self.store.index.output(identity.cache_id(item.work_id)) for identity in self._other_judges)
        return next((output for output in found if output is not None), None)

    @cached_property
    def _other_judges(self) -> list[BatchIdentity]:
        return earlier_identities(self.batch.path(self.batch.layout.provenance), self.batch.source.identity)

    def _write_manifest(
        self,
        choice: Choice,
        states: dict[str, State],
        tally: Tally,
        elapsed: float,
        fault: LlmBatchError | None,
    ) -> dict[str, Any]:
        facts = RunFacts(
            generated_at_utc=utc_now(),
            elapsed_sec=elapsed,
            n_cache_skipped=self._skipped(choice),
            n_to_run=len(choice.to_run),
            usage=self.meter.spending.usage,
            n_unknown_cost=self.meter.spending.unknown,
            pacing=self.meter.pacing,
            structured_output=self.meter.structured_output,
            causes=tally.causes,
            stopped_by=getattr(fault, "cause", None),
        )
        manifest = generation_manifest(self.batch.parameters, self.batch.source, states, facts, self._files(states))
        path = artifact_path(self.batch, "llm_outputs")
        log_written(self.batch.shown(path), write_json(path, manifest))
        if choice.to_run:
            record = run_record(manifest, self.run_id, n_accepted=tally.accepted, n_failed=tally.failed)
            append_run(self.batch.path(self.batch.layout.run_history), record)
        return manifest

    def _files(self, states: dict[str, State]) -> dict[str, Any]:
        succeeded = [self.cache_id(item) for item in self.items if states[item.partition_key] == "accepted"]
        failed = [self.cache_id(item) for item in self.items if states[item.partition_key].startswith("failed")]
        last = [
            self.store.index.failure_path(cache_id, self.store.next_attempt(cache_id) - 1).name for cache_id in failed
        ]
        return {
            "outputs_dir": str(self.batch.layout.llm_outputs),
            "failures_dir": str(self.batch.layout.llm_failures),
            "success_files": [f"{cache_id}.json" for cache_id in succeeded],
            "failure_files": last if self.store.keep_failures else [],
        }


def _left_over(n_to_run: int, max_items: int) -> RunPermanentError | None:
    if not max_items or n_to_run <= max_items:
        return None
    return RunPermanentError(
        "budget",
        f"{counted(max_items, 'item')} done, as many as budget.max_items allows for a run, and {n_to_run - max_items} "
        "left; raise it, or run again to go on",
    )


def _state(result: ItemResult, before: State) -> State:
    if result.failed is None:
        return "accepted"
    if before == "accepted":
        # A forced regeneration that failed: the earlier output still stands.
        return before
    return "failed_permanently" if result.failed.item_permanent else "failed"
