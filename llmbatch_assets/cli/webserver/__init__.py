"""Dagster's webserver and daemon, with a guard in front of the webserver."""
