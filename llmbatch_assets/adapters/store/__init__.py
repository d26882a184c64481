"""The artifact store: outputs, provenance, claims, ledger."""
