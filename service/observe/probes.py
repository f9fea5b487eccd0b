"""Health probes: checks of the parts a service stands on, side by side, shared by all who ask, and never for long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from service.errors import SlipwayError

log = logging.getLogger("slipway.probes")

SECONDS = 1.5  # the longest a check is waited for, from its start
LOST_SECONDS = (
    30.0  # a check that hangs for so long is given up, such as one over a dead connection, and made anew
)
MOST_THREADS = 4  # of one probe, those that hang included


class Probe:
    """Health check of one part. Ill is what raises, says False or why in fixed words, or takes too long.

    `down` is the status then. A result is good for `keep` seconds, and for everybody who asks while it is looked for.
    """

    def __init__(self, check: Callable[[], object], down: str, keep: float = 0.0) -> None:
        self._check = check
        self._down = down
        self._keep = keep
        self._lock = threading.Lock()
        self._look: _Look | None = None
        self._threads = 0

    def begin(self) -> _Look | None:
        """Join the look under way, or start one. None while too many hang."""
        with self._lock:
            look = self._look
            if look is not None and look.good(self._keep):
                return look
            if self._threads >= MOST_THREADS:
                return None
            self._threads += 1
            look = self._look = _Look()
        threading.Thread(target=self._run, args=(look,), name="probe", daemon=True).start()
        return look

    def part(self, look: _Look | None) -> dict[str, Any]:
        """Return the state of the part, as `/ready` shows it."""
        if look is None:
            return {"status": self._down, "latency_ms": SECONDS * 1000}
        healthy = look.done.wait(max(0.0, look.began + SECONDS - time.monotonic())) and look.healthy
        ended = look.ended or time.monotonic()
        part = {
            "status": "ok" if healthy else self._down,
            "latency_ms": round((ended - look.began) * 1000, 2),
        }
        return {**part, "reason": look.reason} if look.reason else part

    def _run(self, look: _Look) -> None:
        try:
            said = self._check()
            look.reason = said if isinstance(said, str) else ""
            look.healthy = said is not False and not look.reason
        except SlipwayError:
            pass
        except Exception:
            log.exception("probe_failed")
        finally:
            look.ended = time.monotonic()
            look.done.set()
            with self._lock:
                self._threads -= 1


class _Look:
    def __init__(self) -> None:
        self.began = time.monotonic()
        self.ended = 0.0
        self.healthy = False
        self.reason = ""
        self.done = threading.Event()

    def good(self, keep: float) -> bool:
        now = time.monotonic()
        return now < self.ended + keep if self.done.is_set() else now < self.began + LOST_SECONDS


def look_at(probes: Mapping[str, Probe]) -> dict[str, dict[str, Any]]:
    """Run all probes side by side; return the state of every part within `SECONDS`."""
    looks = {name: probe.begin() for name, probe in probes.items()}
    return {name: probe.part(looks[name]) for name, probe in probes.items()}
