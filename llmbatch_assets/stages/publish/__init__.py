"""The publish stage: the export, the report, and whether their files are up to date."""
