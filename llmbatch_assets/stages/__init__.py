"""Use cases: one module per verb, without Dagster and without a command line."""
