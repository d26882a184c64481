"""Asynchronous processing of items over ports: attempts, retries, pacing, budget and workers. No files, no provider."""
