"""The contents of the report, independent of their layout."""
