"""What a run would do: selected items, reasons to rerun, estimate, comparison."""
