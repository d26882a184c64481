"""Outputs as tables."""
