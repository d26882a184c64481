"""The generate stage: choose items, run them, and write the manifest."""
