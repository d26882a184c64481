"""``python -m llmbatch_assets.cli`` is ``llmbatch``."""

from llmbatch_assets.cli import main

main()
