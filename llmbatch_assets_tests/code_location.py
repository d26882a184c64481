"""The code location of the working directory's project, for a workspace that names a file."""

from llmbatch_assets.definitions import defs

__all__ = ["defs"]
