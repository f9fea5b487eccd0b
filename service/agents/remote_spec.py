"""Address of a remote agent, as `agent.yaml` gives it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.infra.http import address_fault


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
