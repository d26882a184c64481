"""Durable files: atomic writes, group commit, YAML."""
