"""Turn every row of a table into a validated, judged and cached JSON output of an LLM, as Dagster assets."""
