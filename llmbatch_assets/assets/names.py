"""Names of the assets, partitions, jobs and resources of a batch."""

from __future__ import annotations

import re
from dataclasses import dataclass

import dagster as dg

from llmbatch_assets.domain.configuration.parameters import DEFAULT_BATCH
from llmbatch_assets.resources.partitions import ItemPartitions


@dataclass(frozen=True)
class Names:
    """Names of one batch. All batches but the default one have the batch as a prefix; ``prefix`` comes before it."""

    batch: str
    prefix: tuple[str, ...] = ()
    # The group of the assets, if not the usual one.
    group_name: str = ""

    @property
    def is_default(self) -> bool:
        return self.batch == DEFAULT_BATCH

    @property
    def group(self) -> str:
        return self.group_name or ("llmbatch" if self.is_default else self.batch)

    def key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey([*self._before, asset])

    def own(self, name: str) -> str:
        """A name that must be unique in the Dagster instance or code location: of a job, a resource or partitions."""
        # Dagster allows fewer characters in these names than in asset keys.
        return re.sub(r"\W", "_", "__".join([*self._before, name]), flags=re.ASCII)

    @property
    def _before(self) -> list[str]:
        return [*self.prefix, *([] if self.is_default else [self.batch])]

    @property
    def partitions(self) -> dg.DynamicPartitionsDefinition:
        """One key per work item. Each batch has its own definition; otherwise one would delete another's keys."""
        return dg.DynamicPartitionsDefinition(name=self.own("work_items"))

    def registered(self, instance: dg.DagsterInstance) -> ItemPartitions:
        """The keys of ``partitions`` in this instance."""
        return ItemPartitions(instance, self.key("llm_outputs"), self.key("work_items"), self.own("work_items"))

    @property
    def io_manager(self) -> str:
        return self.own("llmbatch_io_manager")

    @property
    def llm(self) -> str:
        return self.own("llmbatch_llm")
