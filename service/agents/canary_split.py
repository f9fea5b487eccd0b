"""Assignment of sessions and users to a canary, to its control group, or to neither: the same in every process."""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

from service.agents.definitions import AgentDefinition

OF = 10_000  # shares are counted in this


class CanarySplit(NamedTuple):
    """A canary's traffic. The control group is as large, and has the pinned version."""

    agent: str
    n: int  # of the agent's canaries: each has other sessions and users
    share: int  # of `OF`; at most half

    def side(self, unit: str) -> Literal["canary", "control"] | None:
        """Return the side of a session or user."""
        digest = hashlib.sha256(f"{self.agent} {self.n} {unit}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") % OF
        if place < self.share:
            return "canary"
        return "control" if place < 2 * self.share else None


class ServedCanary(NamedTuple):
    """Canary that this process serves, beside the version `against` which it is compared."""

    split: CanarySplit
    definition: AgentDefinition
    against: str
