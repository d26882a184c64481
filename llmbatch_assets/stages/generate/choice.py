"""The items of a batch, their states before a run, and the choice of those that the run works on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from llmbatch_assets.adapters.store.outputs import FileStore
from llmbatch_assets.adapters.store.run_records import earlier_identities, kept_identities, usage_of_items
from llmbatch_assets.domain.canonical import readable_json
from llmbatch_assets.domain.export.records import OutdatedOutput
from llmbatch_assets.domain.item_state import ItemState
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.outcome import AcceptedOutput
from llmbatch_assets.domain.plan.selection import Choice, Selection, choose
from llmbatch_assets.domain.usage import TokenUsage, UsageTotal
from llmbatch_assets.errors import ArtifactError, FailureCause
from llmbatch_assets.stages.artifacts import BatchOutputs, output_store
from llmbatch_assets.stages.project import Batch


@dataclass
class BatchItems:
    """All items of a batch and their outputs."""

    batch: Batch
    items: Sequence[WorkItem]

    @cached_property
    def store(self) -> FileStore:
        return output_store(self.batch)

    @cached_property
    def states(self) -> dict[str, ItemState]:
        """The state of every item at the start, by partition key."""
        return {item.partition_key: self.store.index.state(self.cache_id(item)) for item in self.items}

    @cached_property
    def accepted(self) -> list[WorkItem]:
        """The items that had an accepted output at the start."""
        return [item for item in self.items if self.states[item.partition_key] == "accepted"]

    def cache_id(self, item: WorkItem) -> str:
        return self.batch.source.identity.cache_id(item.work_id)

    def choose(self, selection: Selection, force: bool) -> Choice:
        """Choose the items to run. ``force`` marks the selected ones for regeneration, also for later runs."""
        if force or self.batch.parameters.cache.force:
            everything = selection._replace(select="all") if selection.select == "pending" else selection
            choice = choose(self.items, self.states, everything, lambda item: True)
            self.store.force(self.cache_id(item) for item in choice.to_run)
            return choice
        return choose(self.items, self.states, selection, self.is_forced)

    def n_skipped(self, choice: Choice) -> int:
        """Count the items with an output that do not run."""
        running = {item.partition_key for item in choice.to_run}
        return sum(item.partition_key not in running for item in self.accepted)

    def is_forced(self, item: WorkItem) -> bool:
        return not self.batch.parameters.cache.enabled or self.store.is_forced(self.cache_id(item))

    def output(self, item: WorkItem) -> AcceptedOutput:
        """Return the output of an accepted item. Raises ``ArtifactError`` if its file has disappeared."""
        output = self.store.index.output(self.cache_id(item))
        if output is None:
            raise ArtifactError(f"{self.store.index.output_path(self.cache_id(item))} has disappeared during the run")
        return output

    @cached_property
    def _earlier_usage(self) -> dict[str, UsageTotal]:
        """The usage before this run of the items with a failed or unfinished attempt."""
        index = self.store.index
        several = [
            cache_id
            for cache_id in map(self.cache_id, self.items)
            if cache_id in index.failed or cache_id in index.awaiting
        ]
        return usage_of_items(self.batch.path(self.batch.layout.ledger), several)

    def read_earlier_usage(self) -> None:
        """Read the usage of earlier attempts now, before this run adds its own calls to the ledger."""
        _ = self._earlier_usage

    def usage(self, item: WorkItem, in_this_run: TokenUsage) -> TokenUsage:
        """Return the usage of all attempts of an item, given what this run added."""
        earlier = self._earlier_usage.get(self.cache_id(item))
        return earlier.usage + in_this_run if earlier else in_this_run

    def usage_of_hit(self, item: WorkItem, output: AcceptedOutput) -> TokenUsage:
        """Return the usage of all attempts of an item that had its output before this run."""
        earlier = self._earlier_usage.get(self.cache_id(item))
        return earlier.usage if earlier else output.usage

    @cached_property
    def _outputs(self) -> BatchOutputs:
        identity, folder = self.batch.source.identity, self.batch.path(self.batch.layout.provenance)
        return BatchOutputs(self.store.index, identity, [*self.items], earlier=kept_identities(folder))

    def outdated(self, item: WorkItem) -> OutdatedOutput | None:
        """Return the item's output from earlier settings."""
        return self._outputs.outdated(item, self.batch.shown)

    def has_output(self, item: WorkItem) -> bool:
        """Return whether the item has an accepted output now."""
        return self.store.index.output(self.cache_id(item)) is not None

    def find_existing(self, item: WorkItem, *, forced: bool) -> AcceptedOutput | None:
        """Return the output if another run has produced it since the start."""
        if forced and self.is_forced(item):
            return None
        return self.store.index.output(self.cache_id(item))

    def find_differently_judged(self, item: WorkItem) -> AcceptedOutput | None:
        """Return an output that differs from the wanted one only in its judge, and that this judge has not yet rejected.

        None if a new one was asked for.
        """
        if not self._identities_of_other_judges or self.is_forced(item):
            return None
        found = (
            self.store.index.output(identity.cache_id(item.work_id)) for identity in self._identities_of_other_judges
        )
        rejected = self._rejected_answers(item)
        return next((one for one in found if one is not None and readable_json(one.parsed) not in rejected), None)

    def _rejected_answers(self, item: WorkItem) -> frozenset[str | None]:
        """Return the answers that the present judge has rejected. Their verdicts are not paid for again."""
        index, cache_id = self.store.index, self.cache_id(item)
        if cache_id not in index.failed:
            return frozenset()
        failures = index.failed_attempts(cache_id)
        return frozenset(one.raw_text for one in failures if one.cause == FailureCause.JUDGE_REJECTED)

    @cached_property
    def _identities_of_other_judges(self) -> list[BatchIdentity]:
        return earlier_identities(self.batch.path(self.batch.layout.provenance), self.batch.source.identity)

    def judge_scores(self, keys: Collection[str]) -> list[float]:
        """Return the scores of the accepted outputs of these partition keys; none without a judge."""
        if not self.batch.source.identity.judge_enabled:
            return []
        wanted = set(keys)
        judged = (self.store.index.judge_score(self.cache_id(one)) for one in self.items if one.partition_key in wanted)
        return [score for score in judged if score is not None]
