"""Recognizes, without reading them, files that have not changed since the last run."""
