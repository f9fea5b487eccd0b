"""Health probes of dependencies: concurrent, shared between callers, with a time-out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from service.errors import SlipwayError

log = logging.getLogger("slipway.probes")

SECONDS = 1.5  # time-out of waiting for a check, from its start
LOST_SECONDS = 30.0  # a check that hangs for longer, as on a dead connection, is abandoned and started anew
MAX_THREADS = 4  # per probe, with hanging ones


class Probe:
    """Health check of one dependency: unhealthy when `check` raises, returns False or a reason, or times out.

    `down` is its status then. A result is shared by concurrent callers and cached for `keep` seconds.
    """

    def __init__(self, check: Callable[[], object], down: str, keep: float = 0.0) -> None:
        self._check = check
        self._down = down
        self._keep = keep
        self._lock = threading.Lock()
        self._latest: _Check | None = None
        self._threads = 0

    def begin(self) -> _Check | None:
        """Join the current check, or start one. None while too many hang."""
        with self._lock:
            check = self._latest
            if check is not None and check.is_current(self._keep):
                return check
            if self._threads >= MAX_THREADS:
                return None
            check = _Check()
            threading.Thread(target=self._run, args=(check,), name="probe", daemon=True).start()
            self._threads += 1  # after the start, which fails at the system's limit of threads
            self._latest = check
        return check

    def state(self, check: _Check | None) -> dict[str, Any]:
        """Wait for a check; return its state as in `/ready`: `status`, `latency_ms`, `reason` if there is one."""
        if check is None:
            return {"status": self._down, "latency_ms": SECONDS * 1000}
        healthy = check.done.wait(max(0.0, check.began + SECONDS - time.monotonic())) and check.healthy
        ended = check.ended or time.monotonic()
        state = {
            "status": "ok" if healthy else self._down,
            "latency_ms": round((ended - check.began) * 1000, 2),
        }
        return {**state, "reason": check.reason} if check.reason else state

    def _run(self, check: _Check) -> None:
        try:
            result = self._check()
            check.reason = result if isinstance(result, str) else ""
            check.healthy = result is not False and not check.reason
        except SlipwayError:
            pass
        except Exception:
            log.exception("probe_failed")
        finally:
            check.ended = time.monotonic()
            with self._lock:
                self._threads -= 1  # before `done`, which lets the next check begin
            check.done.set()


class _Check:
    def __init__(self) -> None:
        self.began = time.monotonic()
        self.ended = 0.0
        self.healthy = False
        self.reason = ""
        self.done = threading.Event()

    def is_current(self, keep: float) -> bool:
        now = time.monotonic()
        return now < self.ended + keep if self.done.is_set() else now < self.began + LOST_SECONDS


def run_all(probes: Mapping[str, Probe]) -> dict[str, dict[str, Any]]:
    """Run probes concurrently; return the state of each, within `SECONDS`."""
    checks = {name: probe.begin() for name, probe in probes.items()}
    return {name: probe.state(checks[name]) for name, probe in probes.items()}
