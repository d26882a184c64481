"""The outside world: files, tables, providers, pages."""
