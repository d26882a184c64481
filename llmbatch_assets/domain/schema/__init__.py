"""The schema of an output: contract, JSON Schema, and the grammar of schema modules."""
