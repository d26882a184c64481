"""Addresses of servers: one spelling of each, and what an address says about its server."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
# Hosts of Azure resources that take the header api-key. Its serverless hosts, *.models.ai.azure.com, do not.
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_DEPLOYMENT_PATH = "/openai/deployments/"
_API_VERSION = "api-version"
_AZURE_FORMS = (
    "https://RESOURCE.openai.azure.com/openai/v1 or "
    "https://RESOURCE.openai.azure.com/openai/deployments/DEPLOYMENT?api-version=2024-10-21"
)


_NO_ADDRESS = "must be the address of a server, e.g. http://127.0.0.1:8000/v1"
# Paths of endpoints, which users often copy along with the address.
_ENDPOINT = re.compile(r"/(?:chat/completions|completions|responses|messages|embeddings)/*$|(?<=/v1)/models/*$")


def checked_address(url: str) -> str:
    """Return the canonical form of a server's address; an empty one stays empty. Raises ``ValueError``."""
    if not url:
        return url
    parts = _split(url)
    if parts.username or parts.password or not _has_harmless_query(parts):
        raise ValueError(
            "must not contain a user, password or query, except ?api-version=... for Azure OpenAI; put keys into an "
            "environment variable (api_key_env)"
        )
    if _lacks_deployment(parts):
        raise ValueError(f"must be the whole address of an Azure OpenAI model: {_AZURE_FORMS}")
    if found := _ENDPOINT.search(parts.path):
        address = urlunsplit(parts._replace(path=parts.path[: found.start()]))
        raise ValueError(f"must not include {found[0]}; write {address}")
    return canonical_address(url)


def _split(url: str) -> SplitResult:
    """Split an address into its parts. Raises ``ValueError`` for one that cannot be a server's."""
    if re.search(r"\s", url):
        raise ValueError("must not contain spaces or line breaks")
    if "://" not in url:
        raise ValueError(f"{_NO_ADDRESS}; write http:// or https:// before it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("must have no port, or one from 1 to 65535, e.g. http://127.0.0.1:8000/v1") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == 0 or re.search(r"[<>{}$*\\]", url):
        raise ValueError(_NO_ADDRESS)
    return parts


def canonical_address(url: str) -> str:
    """Return an address without a default port and trailing slash, with scheme and host in lower case."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return urlunsplit((parts.scheme, f"{host}{port}", parts.path.rstrip("/"), parts.query, ""))


def chat_url(base_url: str) -> str:
    """Return the URL of chat completions at a server."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/chat/completions"))


def is_azure(base_url: str) -> bool:
    """Return whether the address is Azure OpenAI's, or that of a gateway that uses the same paths."""
    parts = urlsplit(base_url)
    return (parts.hostname or "").endswith(_AZURE_HOSTS) or _DEPLOYMENT_PATH in parts.path


def azure_api_version(base_url: str) -> str:
    """Return the version of Azure's API that an address names; empty if it names none."""
    return dict(parse_qsl(urlsplit(base_url).query)).get(_API_VERSION, "")


def _has_harmless_query(parts: SplitResult) -> bool:
    return not parts.query or re.fullmatch(rf"{_API_VERSION}=[\w.-]{{1,40}}", parts.query, re.ASCII) is not None


def _lacks_deployment(parts: SplitResult) -> bool:
    """Return whether an address at Azure can have no model behind it."""
    host = parts.hostname or ""
    if _DEPLOYMENT_PATH in f"{parts.path}/":
        deployment = parts.path.partition(_DEPLOYMENT_PATH)[2].strip("/")
        return not deployment or (host.endswith(_AZURE_HOSTS) and not parts.query)
    return host.endswith(_AZURE_HOSTS[:2]) and not parts.path.rstrip("/").endswith("/v1")
