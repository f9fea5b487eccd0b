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
    """Where and how a remote agent is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(min_length=1, max_length=2_000), AfterValidator(_address)]
    protocol: Literal["post", "a2a"] = "post"
    silence_seconds: float = Field(default=60, gt=0, le=600)
