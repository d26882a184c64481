"""Comparison with an earlier identity: what changed in the request, and in the outputs of the same items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch_assets.adapters.files.atomic import write_atomically
from llmbatch_assets.adapters.store.index import CacheIndex
from llmbatch_assets.domain.items.identity import BatchIdentity
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.plan.difference import (
    CHANGE_LABELS,
    ChangedValue,
    Comparison,
    Differences,
    OutputPair,
    OutputSide,
    changed_values,
    prompt_lines,
    schema_fields,
)
from llmbatch_assets.domain.plan.rerun_reasons import RerunReasons, changes_between
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.domain.schema.contract import JUDGE_MODEL
from llmbatch_assets.errors import InputError
from llmbatch_assets.stages.artifacts import cache_index, current_work
from llmbatch_assets.stages.previous_outputs import PreviousOutputs
from llmbatch_assets.stages.project import Batch

SHORTEST_NAME = 4


class PreviousIdentity(NamedTuple):
    """Another identity, and the number of its artifacts of the current items."""

    identity: BatchIdentity
    used_at_utc: str | None
    n_outputs: int
    n_failed: int
    changes: RerunReasons

    def as_json(self) -> dict[str, Any]:
        return {
            "sha": self.identity.sha,
            "used_at_utc": self.used_at_utc,
            "outputs": self.n_outputs,
            "failed": self.n_failed,
            "differs_in": self.changes,
            "identity": self.identity.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Comparer:
    """Compares the current items under the current identity and others. Raises ``InputError``."""

    batch: Batch

    @cached_property
    def items(self) -> list[WorkItem]:
        return current_work(self.batch).items

    @cached_property
    def _cache(self) -> CacheIndex:
        return cache_index(self.batch)

    @cached_property
    def _previous(self) -> PreviousOutputs:
        return PreviousOutputs(self.batch, self.items, self._cache)

    @cached_property
    def identities(self) -> list[PreviousIdentity]:
        """The other identities that have artifacts of the current items, the last used first."""
        now, artifacts = (
            self.batch.source.identity,
            [one for several in self._previous.by_item.values() for one in several],
        )
        places = {use.identity: place for place, use in enumerate(self._previous.uses)}
        last_used = {use.identity: use.at_utc for use in self._previous.uses}
        counts = Counter((one.identity.sha, one.is_output) for one in artifacts)
        identities = {one.identity.sha: one.identity for one in artifacts}
        return [
            PreviousIdentity(one, last_used.get(sha), counts[sha, True], counts[sha, False], changes_between(one, now))
            for sha, one in sorted(identities.items(), key=lambda pair: -places.get(pair[0], -1))
        ]

    def before(self, name: str) -> PreviousIdentity | None:
        """The identity to compare with: the last used one, or the one that ``name`` stands for.

        None if there are no others and none is named. A name is a cache id, or the beginning of the sha of an identity, a prompt or a schema. Raises ``InputError``.
        """
        if not name:
            return self.identities[0] if self.identities else None
        found = [one for one in self.identities if self._is_named(one.identity, name)]
        if not found:
            raise InputError(f"no other settings are named {name!r}; see llmbatch diff --list")
        by_sha = [one for one in found if one.identity.sha.startswith(name)]
        if len(found) > 1 and len(by_sha) != 1:
            listed = ", ".join(one.identity.sha[:12] for one in found)
            raise InputError(f"{name!r} is ambiguous: it can be any of {listed}; name one of them")
        return (by_sha or found)[0]

    def _is_named(self, identity: BatchIdentity, name: str) -> bool:
        if len(name) < SHORTEST_NAME:
            return False
        shas = (identity.sha, identity.prompt_sha, identity.schema_sha, identity.judge_prompt_sha or "")
        if any(sha.startswith(name) for sha in shas):
            return True
        return name in self._cache.accepted and any(identity.cache_id(item.work_id) == name for item in self.items)

    def differences(self, before: BatchIdentity) -> Differences:
        return differences_since(before, self.batch, self._previous)

    def pairs(self, before: BatchIdentity) -> Iterator[OutputPair]:
        """Every item under both identities, one after another."""
        now = self.batch.source.identity
        for item in self.items:
            yield OutputPair(item, self._side(before.cache_id(item.work_id)), self._side(now.cache_id(item.work_id)))

    def _side(self, cache_id: str) -> OutputSide:
        output = self._cache.output(cache_id) if cache_id in self._cache.accepted else None
        if output is not None:
            return OutputSide("accepted", output.parsed)
        if cache_id not in self._cache.failed:
            return OutputSide("missing")
        failure = self._cache.failure(cache_id)
        message = str((failure.get("error") or {}).get("message", "its file cannot be read"))
        return OutputSide("failed", None, str(failure.get("cause", "unreadable_failure")), message)

    def write_page(self, path: Path, before: PreviousIdentity, found: Comparison) -> None:
        """Write the comparison as an HTML page."""
        # Jinja2 is slow to import, and only a page needs it.
        from llmbatch_assets.adapters.pages.rendering import render_diff

        differences = self.differences(before.identity)
        page = {
            "title": self.batch.title,
            "headline": found.headline,
            "before": before.identity.sha,
            "used_at_utc": before.used_at_utc,
            "now": self.batch.source.identity.sha,
            "prompts": {"Prompt": differences.prompt, "Judge prompt": differences.judge_prompt},
            "tables": {"Schema": differences.schema, "Configuration": differences.config},
            "pairs": found.pairs,
            "labels": CHANGE_LABELS,
            "left_out": found.left_out,
        }
        write_atomically(path, render_diff(page).encode("utf-8", "backslashreplace"))


def differences_since(before: BatchIdentity, batch: Batch, previous: PreviousOutputs) -> Differences:
    """The changes of the request since an earlier identity."""
    now, use = batch.source.identity, previous.last_use(before)
    return Differences(
        against=before.sha,
        used_at_utc=use.at_utc if use else None,
        prompt=_prompt_changes(before.prompt_sha, now.prompt_sha, batch.generation_prompt, previous),
        judge_prompt=_prompt_changes(before.judge_prompt_sha, now.judge_prompt_sha, batch.judge_prompt, previous),
        schema=_schema_changes(before, batch, previous),
        config=changed_values(
            _configuration(before, previous.item_settings(use) if use else None),
            _configuration(now, previous.item_settings(None) if use else None),
        ),
    )


def _prompt_changes(
    old_sha: str | None, new_sha: str | None, prompt: PromptTemplate | None, previous: PreviousOutputs
) -> list[str]:
    if old_sha == new_sha:
        return []
    # An empty mapping stands for a prompt whose text is lost.
    old = (previous.text(old_sha) or {}) if old_sha else None
    return prompt_lines(old, prompt.model_dump(mode="json") if prompt else None)


def _schema_changes(before: BatchIdentity, batch: Batch, previous: PreviousOutputs) -> list[ChangedValue]:
    """The fields that differ in the schemas of outputs and of verdicts."""
    judge = batch.schema.judge() if batch.judge_prompt else None
    pairs = [(before.schema_sha, batch.schema.output(), "")]
    pairs += [(str(before.judge.get("schema_sha")), judge, JUDGE_MODEL)] if judge and before.judge else []
    changes: list[ChangedValue] = []
    for sha, contract, name in pairs:
        kept = None if sha == contract.sha else previous.text(sha)
        if kept is not None:
            then, now = schema_fields(kept), schema_fields(contract.json_schema)
            changes += changed_values({name: then} if name else then, {name: now} if name else now)
    return changes


def _configuration(identity: BatchIdentity, item_settings: dict[str, Any] | None) -> dict[str, Any]:
    """The settings of an identity under their configuration keys."""
    own = {"model_name": identity.model_name, "temperature": identity.temperature}
    # An identity names its provider only if it is not this default.
    llm = {"provider": "openai", **own, **identity.settings}
    judge = {name: value for name, value in (identity.judge or {}).items() if name != "schema_sha"}
    # As in the configuration, the judge inherits what it does not set.
    judge = {name: value for name, value in judge.items() if name not in llm or value != llm[name]}
    return {
        "llm": llm,
        "prompts": {"judge": {"enabled": identity.judge_enabled}},
        "judge": judge,
        **(item_settings or {}),
    }
