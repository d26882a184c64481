"""Base class of all blocks of a configuration file, and field types that several blocks share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from llmbatch_assets.domain.text import composed

# Normalized like the column names of the table.
ColumnName = Annotated[str, AfterValidator(composed)]


class Block(BaseModel):
    """A block of the file. It is frozen and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def block_field(block: type[Block]) -> Any:
    """Return a field for a nested block that may be left out. The block's docstring describes it."""
    return Field(block(), description=block.__doc__)
