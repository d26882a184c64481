"""The output schema: contract, JSON Schema, and the grammar of schema modules."""
