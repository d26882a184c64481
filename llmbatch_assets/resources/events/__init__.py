"""Item events in Dagster."""
