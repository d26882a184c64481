"""Responses of chat-completion servers: the answer, its usage, and what a refusal means."""
