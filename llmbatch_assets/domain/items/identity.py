"""Ids of items and of requests about them: SHA-1 hashes of named parts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from llmbatch_assets.domain.canonical import canonical_json, sha1_named, sha1_text
from llmbatch_assets.domain.configuration.model_blocks import Llm, default_endpoint
from llmbatch_assets.domain.configuration.server_address import canonical_address
from llmbatch_assets.domain.text import slug

IDENTITY_VERSION = 1

# Settings that are part of an identity only if they are set, so that adding one does not change existing ids.
_OPTIONAL_SETTINGS = ("max_output_tokens", "top_p", "seed", "extra_body")

_PART_LABELS = {
    "prompt_sha": "generation prompt",
    "schema_sha": "schema",
    "model_name": "model",
    "temperature": "temperature",
    "judge_enabled": "judge",
    "judge_prompt_sha": "judge prompt",
    "judge": "judge settings",
}


def work_id(
    mode: str,
    group_key: str | None,
    context: str,
    context_id: str | None,
    ordinal: int,
    columns: Mapping[str, str] | None = None,
) -> str:
    """Return the id of an item.

    ``ordinal`` numbers identical items from 0; ``columns`` are those that only placeholders show. The row index is not part
    of the id.
    """
    shown_apart = {"columns": dict(columns)} if columns else {}
    return sha1_named(
        scheme=IDENTITY_VERSION,
        mode=mode,
        group_key=group_key,
        context=context,
        group_context_id=context_id,
        ordinal=ordinal,
        **shown_apart,
    )


def partition_key(label: str, item_id: str) -> str:
    """Return the item's key in Dagster: a readable label and 16 digits of its id; without a label the whole id."""
    readable = _label_slug(label)
    return f"{readable}-{item_id[:16]}" if readable else item_id


# Cached, because the items of a group share their label.
_label_slug = lru_cache(maxsize=2**16)(slug)


def request_settings(llm: Llm) -> dict[str, Any]:
    """Return the settings of ``llm`` that change the request, except for model and temperature."""
    parts = {name: getattr(llm, name) for name in _OPTIONAL_SETTINGS if getattr(llm, name) not in (None, {})}
    if llm.provider != "openai":
        parts["provider"] = llm.provider
    elif llm.base_url:
        parts["base_url"] = llm.base_url
    if llm.structured_output != "auto":
        parts["structured_output"] = llm.structured_output
    return canonical_settings(parts, llm.model_name)


def canonical_settings(settings: Mapping[str, Any], model_name: str) -> dict[str, Any]:
    """Return the settings with one spelling of the server's address, and without it if it is the model's usual one."""
    others = {name: value for name, value in settings.items() if name != "base_url"}
    try:
        address = canonical_address(settings["base_url"])
    except (LookupError, ValueError):
        return dict(settings)
    return others if address == canonical_address(default_endpoint(model_name)) else {**others, "base_url": address}


class BatchIdentity(BaseModel):
    """The settings part of the cache ids of a batch: everything but the item."""

    model_config = ConfigDict(frozen=True)

    prompt_sha: str
    schema_sha: str
    model_name: str
    temperature: float | None
    settings: dict[str, Any]
    judge_enabled: bool
    judge_prompt_sha: str | None = None
    judge: dict[str, Any] | None = None

    def __copy__(self) -> Self:
        # model_copy may change parts, so do not copy the cached properties.
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields})

    def __hash__(self) -> int:
        return hash(self.sha)

    @property
    def sha(self) -> str:
        """Fingerprint of all settings."""
        return sha1_named(**self.parts(""))

    def asks_the_same(self, other: BatchIdentity) -> bool:
        """Return whether both stand for the same requests. Earlier versions treated each spelling of an address as different."""
        return self._canonical() == other._canonical()

    def _canonical(self) -> BatchIdentity:
        settings = canonical_settings(self.settings, self.model_name)
        judge = self.judge and canonical_settings(self.judge, self.judge.get("model_name", ""))
        return self.model_copy(update={"settings": settings, "judge": judge})

    def differs_only_in_judge(self, other: BatchIdentity) -> bool:
        """Return whether generation is the same and only the judge differs."""
        return self != other and self.generation_parts("") == other.generation_parts("")

    def generation_parts(self, item_id: str) -> dict[str, Any]:
        """Return the named parts that an item's generation depends on."""
        return {
            "scheme": IDENTITY_VERSION,
            "work_id": item_id,
            "prompt_sha": self.prompt_sha,
            "schema_sha": self.schema_sha,
            "model_name": self.model_name,
            "temperature": self.temperature,
            **self.settings,
        }

    def parts(self, item_id: str) -> dict[str, Any]:
        """Return all named parts of an item's cache id."""
        judge = {} if self.judge is None else {"judge": self.judge}
        return {
            **self.generation_parts(item_id),
            "judge_enabled": self.judge_enabled,
            "judge_prompt_sha": self.judge_prompt_sha,
            **judge,
        }

    def cache_id(self, item_id: str) -> str:
        """Return the id under which the item's output is stored."""
        return sha1_text(item_id.join(self._cache_frame))

    def differences(self, other: BatchIdentity) -> list[str]:
        """Name the settings that differ."""
        named = [words for name, words in _PART_LABELS.items() if getattr(self, name) != getattr(other, name)]
        keys = sorted(self.settings.keys() | other.settings.keys())
        return named + [key for key in keys if self.settings.get(key) != other.settings.get(key)]

    def generation_id(self, item_id: str) -> str:
        """Return the cache id without the judge's parts. Outputs that share it can be judged again."""
        return sha1_text(item_id.join(self._generation_frame))

    # Canonical JSON split around the item's id, since nothing else differs between items.

    @cached_property
    def _cache_frame(self) -> list[str]:
        return canonical_json(self.parts(self.sha)).split(self.sha)

    @cached_property
    def _generation_frame(self) -> list[str]:
        return canonical_json(self.generation_parts(self.sha)).split(self.sha)


def identity_of(parts: Mapping[str, Any]) -> BatchIdentity:
    """Return the batch identity from the ``parts`` of one item. Raises ``ValueError`` if parts are missing."""
    own = {name: value for name, value in parts.items() if name in _PART_LABELS}
    settings = {name: value for name, value in parts.items() if name not in {*_PART_LABELS, "scheme", "work_id"}}
    return BatchIdentity.model_validate(own | {"settings": settings})
