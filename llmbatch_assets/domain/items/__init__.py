"""Turn table rows into work items."""
