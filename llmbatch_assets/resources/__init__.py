"""Dagster resources, storage and events that the assets use."""

import sys
from importlib import import_module


def _import_mako_without_pygments() -> None:
    """Import Mako, which Dagster's migrations need, without the highlighting of its error pages.

    It would load hundreds of lexers, which take 0.1 s and 10 MB. Mako can do without; Pygments itself stays usable.
    """
    plugin = "mako.ext.pygmentplugin"
    if plugin in sys.modules or "mako.exceptions" in sys.modules:
        return
    sys.modules[plugin] = None  # type: ignore[assignment]  # lets the import fail
    try:
        import_module("mako.exceptions")
    finally:
        del sys.modules[plugin]


_import_mako_without_pygments()
