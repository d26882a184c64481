"""The plan of a run: selected items, reasons to rerun, estimate, comparison."""
