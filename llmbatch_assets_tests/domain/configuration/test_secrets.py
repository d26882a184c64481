"""Keys are recognized by the forms in which services issue them, and ordinary values are not mistaken for keys."""

from __future__ import annotations

import pytest

from llmbatch_assets.domain.configuration.secrets import looks_secret, secret_places, without_secrets

KEYS = [
    "sk-proj-abcDEF0123456789abcDEF0123456789",
    "sk-ant-api03-abcDEF0123456789_abcDEF",
    "sk-or-v1-0123456789abcdef0123456789abcdef",
    "AIzaSyA0123456789abcdefghijklmnopqrstuvw",
    "gsk_0123456789abcdefghijklmnopqrstuv",
    "hf_abcdefghijklmnopqrstuvwxyz0123456789",
    "xai-0123456789abcdefghijklmnopqrstuvwxyz",
    "nvapi-0123456789abcdefghijklmnopqrstuvwxyz",
    "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
    "AKIA0123456789ABCDEF",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w",
    "Bearer 0123456789abcdef0123456789",
    "https://host/sk-0123456789abcdef01/v1",
]
NO_KEYS = [
    *(
        "",
        "gpt-4o-mini-2024-07-18",
        "ft:gpt-4o-mini-2024-07-18:my-org:custom:9abcDEF0",
        "sk-learn-classification-model",
    ),
    *(
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "hf_models/a.csv",
        "raw_data/2026-01-15_sk-1.csv",
        "task-12345678901234567890",
    ),
    *("https://gateway.ai.cloudflare.com/v1/0123456789abcdef0123456789abcdef/gate/openai", "OPENAI_API_KEY"),
    *(
        "3f786850e387550fdab836ed7e6dc881de23001b",
        "550e8400-e29b-41d4-a716-446655440000",
        "hf.co/bartowski/Llama-3.2-1B",
    ),
    "accounts/fireworks/models/llama-v3p1-405b-instruct-long-context-2025",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_recognized_and_never_shown(key: str) -> None:
    assert looks_secret(key)
    assert looks_secret(f"text before {key} and after")
    assert "0123456789" not in without_secrets(f"a {key} b")


@pytest.mark.parametrize("text", NO_KEYS)
def test_ordinary_values_are_no_keys(text: str) -> None:
    assert not looks_secret(text)
    assert without_secrets(text) == text


def test_keys_are_found_wherever_they_are() -> None:
    mapping = {
        "llm": {"model_name": KEYS[0], "extra_body": {"a": [1, {"b": KEYS[1]}]}, "seed": 1, KEYS[2]: "x"},
        "run": {"name": "plain"},
    }
    assert list(secret_places(mapping)) == [
        ("llm", "model_name"),
        ("llm", "extra_body", "a", 1, "b"),
        ("llm", KEYS[2]),
    ]
