"""Replicas that dispatch schedules, each on a clock that jumps, and each killed at any point of a decision.

A program: the parent forks three replicas, again whenever one is killed, until the folder has a file `stop`. The clock
is the number in its file `clock`, in ms; each replica's is apart from it, by hours, and jumps.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from service import wiring
from service.jobs.broker import make_wakeup
from service.runs.recovery.supervisor import ProcessRole
from service.schedules.dispatch import Dispatcher
from service.store import schedules as rows
from tests.made import settings_in

REPLICAS = 3
KILLED = 0.01  # probability at each point
MINUTE = 60_000
APART = (0, 0, 0, -MINUTE // 2, MINUTE // 2, -7 * MINUTE, 5 * MINUTE, -60 * MINUTE, 20 * MINUTE)


def deadly(work: Callable[..., Any]) -> Callable[..., Any]:
    """Die before a call, or after it, now and then."""

    @wraps(work)
    def wrapped(*given: Any, **more: Any) -> Any:
        maybe_die()
        answer = work(*given, **more)
        maybe_die()
        return answer

    return wrapped


def maybe_die() -> None:
    if random.random() < KILLED:
        os.kill(os.getpid(), signal.SIGKILL)


class Clock:
    """Clock of one replica."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._apart = 0

    def __call__(self, tx: object) -> int:
        if random.random() < 0.05:
            self._apart = random.choice(APART)
        return int(self._file.read_text() or 0) + self._apart


def replica(folder: Path, url: str, redis_url: str) -> None:
    """Dispatch until told to stop, and then once more, on the true clock."""
    random.seed()
    settings = settings_in(folder, DATABASE_URL=url, REDIS_URL=redis_url)
    services = wiring.build(settings, ProcessRole("web", make_wakeup(settings)))
    rows.clock = Clock(folder)  # type: ignore[assignment]
    for name in ("take_due", "decide", "update"):
        setattr(rows, name, deadly(getattr(rows, name)))
    Dispatcher._told = deadly(Dispatcher._told)  # type: ignore[method-assign]
    while not (folder / "stop").exists():
        services.dispatcher.dispatch()
        time.sleep(random.uniform(0, 0.02))
    services.close()


def main(folder: Path, url: str, redis_url: str) -> None:
    alive: set[int] = set()
    killed = failed = 0
    while alive or not (folder / "stop").exists():
        while len(alive) < REPLICAS and not (folder / "stop").exists():
            pid = os.fork()
            if pid == 0:
                try:
                    replica(folder, url, redis_url)
                    os._exit(0)
                except BaseException:
                    sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                    os._exit(1)
            alive.add(pid)
        pid, status = os.waitpid(-1, 0)
        alive.discard(pid)
        killed += os.WIFSIGNALED(status)
        failed += os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0
    (folder / "told").write_text(json.dumps({"killed": killed, "failed": failed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
