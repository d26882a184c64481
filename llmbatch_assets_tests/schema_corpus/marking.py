"""A module that is noticed when it is imported: it leaves the marker."""

from __future__ import annotations

import os
from pathlib import Path

Path(os.environ["SCHEMA_MARKER"]).touch()
