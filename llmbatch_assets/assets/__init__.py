"""The assets of one batch."""
