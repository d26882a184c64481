"""For tools that require this file; the settings are in pyproject.toml."""

from setuptools import setup

setup()
