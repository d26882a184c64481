"""Checks of a batch's files before anything runs, and of its models."""
