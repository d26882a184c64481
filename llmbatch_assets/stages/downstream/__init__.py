"""The outputs of a batch for the assets that depend on it."""
