"""LLM providers: clients, errors, credentials, prices."""
