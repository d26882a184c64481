"""From rows to work items."""
