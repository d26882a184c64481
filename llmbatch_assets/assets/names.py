"""What a batch calls its assets, partitions and jobs."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg

from llmbatch_assets.domain.parameters import DEFAULT_BATCH


@dataclass(frozen=True)
class Names:
    """Names of one batch. The default batch has plain ones, every other its own prefix; ``prefix`` goes before both."""

    batch: str
    prefix: tuple[str, ...] = ()

    @property
    def is_default(self) -> bool:
        return self.batch == DEFAULT_BATCH

    @property
    def group(self) -> str:
        """The asset group."""
        return "llmbatch" if self.is_default else self.batch

    def key(self, asset: str) -> dg.AssetKey:
        """The key of an asset."""
        return dg.AssetKey([*self._before, asset])

    def own(self, name: str) -> str:
        """A name that is global in a Dagster instance or code location: a job's, a resource's, partitions'."""
        return "__".join([*self._before, name])

    @property
    def _before(self) -> list[str]:
        return [*self.prefix, *([] if self.is_default else [self.batch])]

    @property
    def partitions(self) -> dg.DynamicPartitionsDefinition:
        """One key per work item. The name is the batch's own, or one batch would delete another's keys."""
        return dg.DynamicPartitionsDefinition(name=self.own("work_items"))

    @property
    def io_manager(self) -> str:
        """The resource key of the batch's I/O manager."""
        return self.own("json_io_manager")
