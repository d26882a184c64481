"""Addresses: one spelling for each, and none that leads nowhere or holds a key."""

from __future__ import annotations

import pytest

from llmbatch_assets.domain.configuration.model_blocks import GEMINI_BASE_URL, OPENAI_BASE_URL, Llm
from llmbatch_assets.domain.configuration.server_address import (
    azure_api_version,
    canonical_address,
    chat_url,
    checked_address,
    is_azure,
)

DEPLOYMENT = "https://res.openai.azure.com/openai/deployments/Gpt-4o"


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("http://h:8000/v1", "http://h:8000/v1"),
        ("http://h:8000/v1/", "http://h:8000/v1"),
        ("http://h:8000/v1//", "http://h:8000/v1"),
        ("HTTP://H:8000/v1", "http://h:8000/v1"),
        ("http://h:80/v1", "http://h/v1"),
        ("https://h:443/v1/", "https://h/v1"),
        ("https://h:80/v1", "https://h:80/v1"),
        ("http://h/", "http://h"),
        ("http://h", "http://h"),
        ("http://[::1]:8000/v1/", "http://[::1]:8000/v1"),
        ("http://h/v1#part", "http://h/v1"),
        # The case of a path can matter.
        ("http://h/V1", "http://h/V1"),
        (f"{DEPLOYMENT}/?api-version=2024-10-21", f"{DEPLOYMENT}?api-version=2024-10-21"),
        ("", ""),
    ],
)
def test_an_address_has_one_spelling(written: str, canonical: str) -> None:
    assert checked_address(written) == canonical
    assert Llm(base_url=written).base_url == canonical
    assert not canonical or canonical_address(canonical) == canonical


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("h:8000/v1", "must be the address of a server"),
        ("ftp://h/v1", "must be the address of a server"),
        ("http:///v1", "must be the address of a server"),
        ("http://<host>/v1", "must be the address of a server"),
        ("http://h:0/v1", "must be the address of a server"),
        ("localhost:8000/v1", "write http:// or https:// before it"),
        ("http://h:99999/v1", "must have no port, or one from 1 to 65535"),
        ("http://h:x/v1", "must have no port, or one from 1 to 65535"),
        ("http://a b/v1", "must not contain spaces"),
        ("http://h/v1 ", "must not contain spaces"),
        ("http://h/v1/chat/completions", "must not include /chat/completions; write http://h/v1$"),
        ("http://h/v1/completions/", "write http://h/v1$"),
        ("http://h/v1/models", "write http://h/v1$"),
        (f"{DEPLOYMENT}/chat/completions?api-version=2024-10-21", "must not include /chat/completions"),
        ("https://user:secret@h/v1", r"except \?api-version="),
        ("https://h/v1?key=sk-123", r"except \?api-version="),
        ("https://h/v1?api-version=2024-10-21&key=sk-123", r"except \?api-version="),
        ("https://h/v1?api-version=", r"except \?api-version="),
        # Azure: no model, or no version.
        ("https://res.openai.azure.com", "whole address of an Azure OpenAI model"),
        ("https://res.openai.azure.com/openai/", "whole address of an Azure OpenAI model"),
        ("https://res.openai.azure.com/openai/deployments/", "whole address of an Azure OpenAI model"),
        # As Azure shows it.
        (
            f"{DEPLOYMENT}/chat/completions?api-version=2024-10-21",
            rf"write {DEPLOYMENT}\?api-version=2024-10-21$",
        ),
        (DEPLOYMENT, "openai/deployments/DEPLOYMENT\\?api-version="),
    ],
)
def test_an_address_that_cannot_be_right_is_refused_with_one_that_is(written: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        checked_address(written)


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://h/v1", "http://h/v1/chat/completions"),
        (GEMINI_BASE_URL, f"{GEMINI_BASE_URL}chat/completions"),
        (f"{DEPLOYMENT}?api-version=2024-10-21", f"{DEPLOYMENT}/chat/completions?api-version=2024-10-21"),
        ("https://res.openai.azure.com/openai/v1", "https://res.openai.azure.com/openai/v1/chat/completions"),
    ],
)
def test_calls_go_to_the_path_below_the_address_and_keep_its_query(base_url: str, url: str) -> None:
    assert chat_url(base_url) == url


@pytest.mark.parametrize(
    ("base_url", "azure", "version"),
    [
        (f"{DEPLOYMENT}?api-version=2024-10-21", True, "2024-10-21"),
        ("https://res.openai.azure.com/openai/v1", True, ""),
        ("https://res.services.ai.azure.com/openai/v1", True, ""),
        ("https://gateway.example.com/openai/deployments/m?api-version=preview", True, "preview"),
        ("https://model.westeurope.models.ai.azure.com/v1", False, ""),
        ("https://azure.example.com/v1", False, ""),
        (OPENAI_BASE_URL, False, ""),
    ],
)
def test_azure_is_known_by_its_address(base_url: str, azure: bool, version: str) -> None:
    assert (is_azure(base_url), azure_api_version(base_url)) == (azure, version)
    assert Llm(base_url=base_url).key_header == ("api-key" if azure else "Authorization")
    assert Llm(base_url=base_url, api_key_header="x-api-key").key_header == "x-api-key"
