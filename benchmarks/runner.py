"""One run of the benchmark: measures in turn, tells how far it is, and keeps what it has found so far."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.fleet import Fleet, title
from benchmarks.measure import BARE, Ask, Figures
from benchmarks.processes import Failed
from benchmarks.servers import Server, Setup
from benchmarks.shots import ideal_seconds

WARM = 60  # requests before a server's first measurement of a kind
HOPELESS = 4.0  # a server whose p99 passed so many ideals is not asked at a higher level
CASE_LIMIT = 480.0  # seconds; what is not measured by then is told of, and left out


class Run:
    """Figures and single findings by case; written to `out` after each of them."""

    def __init__(
        self, fleet: Fleet, names: Iterable[str], out: Path, scale: float, machine: dict[str, Any]
    ) -> None:
        self.fleet, self.names, self.out, self.scale = fleet, list(names), out, scale
        self.figures: list[Figures] = []
        self.found: dict[str, dict[str, Any]] = {}  # case -> server -> anything
        self.machine = machine
        self.loads: dict[str, list[float]] = {}
        self._warm: set[tuple[int, str]] = set()
        self._began = self._case_began = time.monotonic()

    def begin(self, case: str, title: str) -> None:
        self.loads[case] = [round(value, 2) for value in os.getloadavg()]
        self._case_began = time.monotonic()
        took = self._case_began - self._began
        print(f"[{took / 60:4.1f} min] {case}: {title} (load {self.loads[case][0]:.1f})", flush=True)

    def late(self, case: str, name: str) -> bool:
        """The case has had its time; that is noted for this server."""
        late = time.monotonic() - self._case_began > CASE_LIMIT
        if late:
            self.note(case, name, "stopped", "the time of this part was up")
        return late

    def count(self, number: int) -> int:
        """A count of requests, made smaller by `--scale`."""
        return max(4, round(number * self.scale))

    def interleave(
        self, case: str, ask: Ask, rounds: int, setup: Setup | None = None, names: Iterable[str] = ()
    ) -> None:
        """A B A B: every server once in each round, so that what disturbs one disturbs its neighbour too."""
        out: set[str] = set()
        for number in range(rounds):
            for name in names or self.names:
                if name not in out and not self.one(case, name, number, ask, setup):
                    out.add(name)

    def one(self, case: str, name: str, number: int, ask: Ask, setup: Setup | None = None) -> Figures | None:
        """One round on one server; None, and why, when it cannot be measured."""
        if (name == BARE and ask.kind == "hit") or self.late(case, name):
            return None
        try:
            server = None if name == BARE else self.fleet.get(name, setup or Setup())
            return self.measure(case, server, number, ask)
        except Failed as error:
            self.note(case, name, "fault", str(error))
        except Exception as error:  # one server's trouble does not end the run
            self.note(case, name, "fault", repr(error))
            print(f"  {case:10} {title(name)}: {error!r}", flush=True)
        return None

    def measure(self, case: str, server: Server | None, number: int, ask: Ask) -> Figures:
        """One round on a server that runs."""
        if server is not None:
            self._warm_up(server, ask)
        found = self.fleet.bench.measure(server, case, number, ask)
        self.figures.append(found)
        self._tell(found)
        self.save()
        return found

    def _warm_up(self, server: Server, ask: Ask) -> None:
        if (server.child.pid, ask.kind) not in self._warm:
            self._warm.add((server.child.pid, ask.kind))
            quick = ask.wish._replace(wait=0, first=0, every=0) if ask.kind != "hit" else ask.wish
            for clients in (1, 8):
                self.fleet.bench.shoot(server, Ask(ask.kind, quick, clients, WARM // 2, limit=30))

    def hopeless(self, name: str, case: str, ask: Ask) -> bool:
        """At this level the server was already far from the ideal, or did not answer."""
        mine = [one for one in self.figures if one.server == name and one.case == case]
        ideal = ideal_seconds(ask.wish, ask.kind == "stream") * 1000
        return any(one.p99 > HOPELESS * ideal or sum(one.errors.values()) > one.good for one in mine)

    def note(self, case: str, name: str, what: str, value: Any) -> None:
        self.found.setdefault(case, {}).setdefault(name, {})[what] = value
        self.save()

    def _tell(self, found: Figures) -> None:
        first = f" first {found.first_p50:6.0f}/{found.first_p99:6.0f}" if found.first_p50 else ""
        errors = f"  errors {found.errors}" if found.errors else ""
        print(
            f"  {found.case:10} {title(found.server):21} {found.good:5} in {found.seconds:5.1f} s"
            f"  p50/p99 {found.p50:6.0f}/{found.p99:6.0f} ms{first}  cpu {found.cpu_ms:6.2f} ms{errors}",
            flush=True,
        )

    def public(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "scale": self.scale,
            "loads": self.loads,
            "minutes": round((time.monotonic() - self._began) / 60, 1),
            "figures": [one.public() for one in self.figures],
            "found": self.found,
        }

    def save(self) -> None:
        scratch = self.out.with_suffix(".part")
        scratch.write_text(json.dumps(self.public(), indent=1))
        scratch.replace(self.out)
