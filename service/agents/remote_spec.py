"""Address of a remote agent, as `agent.yaml` gives it, and the hosts that the operator allows."""

from __future__ import annotations

from collections.abc import Set
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.infra.http import address_fault


def hosts_of(setting: str) -> frozenset[str]:
    """Return the hosts that `REMOTE_HOSTS` names, each a `name` or `name:port`."""
    return frozenset(host.strip().lower() for host in setting.split(",") if host.strip())


def names_of(url: str) -> tuple[str, str]:
    """Return the names under which the host of an address may be listed: with its port, and without."""
    parts = urlsplit(url)
    return parts.netloc.lower(), (parts.hostname or "").lower()


def is_allowed(url: str, hosts: Set[str]) -> bool:
    """Return whether an address gets the conversation and a run's token."""
    return bool({*names_of(url)} & hosts)


def _address(url: str) -> str:
    """Return the URL. Raises `ValueError` for one that cannot be asked."""
    if fault := address_fault(url, allow_private=True):
        raise ValueError(fault)
    return url


class RemoteSpec(BaseModel):
    """Address of a remote agent, its protocol, and the longest silence it may keep."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_address)] = Field(
        min_length=1,
        max_length=2_000,
        description="Pattern `remote` only: address of the service that answers",
    )
    protocol: Literal["post", "a2a"] = Field(
        default="post", description="`post`, as docs/remote-agents.md has it, or `a2a`: A2A 1.0 over JSON-RPC"
    )
    silence_seconds: float = Field(
        default=60, gt=0, le=600, description="Longest wait for the service's next byte, in seconds"
    )
