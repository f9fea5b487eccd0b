"""State of a process, stored with each renewal of its lease, so that any other process can tell it too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service import __version__
from service.llm.breaker import BreakerState
from service.observe.pools import Pools
from service.observe.traffic import Traffic
from service.runs.slots import Slots

MAX_BREAKERS, MAX_SERVERS = 50, 50

# Of MCP servers: name, whether it is reached (None: not tried), and the state of its breaker.
Servers = Callable[[], Sequence[tuple[str, bool | None, str]]]


@dataclass(frozen=True, slots=True)
class ProcessState:
    """State of this process. One per process."""

    pools: Pools
    slots: Slots
    traffic: Traffic
    breakers: Callable[[], list[BreakerState]]
    servers: Servers
    audit_intact: Callable[[], bool | None]

    def read(self) -> dict[str, Any]:
        breakers = sorted(self.breakers(), key=lambda each: each.state == "closed")[:MAX_BREAKERS]
        return {
            "version": __version__,
            "runs": len(self.slots.all()),
            "pools": self.pools.figures(),
            "traffic": self.traffic.last_minute(),
            "breakers": [each._asdict() for each in breakers],
            "servers": [[*each] for each in self.servers()[:MAX_SERVERS]],
            "audit_intact": self.audit_intact(),
        }


_EMPTY: Mapping[str, Any] = {
    "version": None,
    "runs": None,
    "pools": {},
    "traffic": None,
    "breakers": (),
    "servers": (),
    "audit_intact": None,
}


def state_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a process told; an empty state of one of a release before."""
    return {**_EMPTY, **(row["state"] or {})}
