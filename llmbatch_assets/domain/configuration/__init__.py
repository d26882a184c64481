"""Configuration files: their blocks, and values from environment variables."""
