"""Pure domain logic: values in, values out; no files, network, clock, environment or Dagster."""
