"""Asynchronous policy over ports: how one item and how a batch of items is worked through."""
