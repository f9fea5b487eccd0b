"""Process supervisor: starts programs, restarts them with backoff, stops them in order."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from launcher.process import Child as Process
from launcher.process import fork, spawn
from launcher.reaper import Reaper, kill_session
from launcher.state import CannotStart

TICK_SECONDS = 0.05
FIRST_BACKOFF, MAX_BACKOFF = 0.5, 10.0
MAX_START_FAILURES = 3  # of a program that was never ready; then the launcher gives up
ASSUMED_READY_SECONDS = 5.0  # for a program without a readiness check
STABLE_SECONDS = 30.0  # uptime that resets the backoff
RESTART_SECONDS = 3.0  # to stop after a code change; the new process resumes the runs


class Stopped(Exception):
    """SIGTERM, SIGINT or SIGHUP received: stop everything."""


@dataclass(frozen=True)
class Program:
    """Program to run. `ready` must return quickly; a `once` program is ready after exit code 0.

    A `forked` one is a Python module, run in a copy of the launcher.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool] | None = None
    once: bool = False
    failure_hint: str = "its own lines above say why"
    stop_seconds: float = 5.0
    forked: bool = False


@dataclass
class _Child:
    program: Program
    process: Process | None = None
    ready: bool = False
    failures: int = 0
    started_at: float = 0.0
    start_at: float = 0.0


def log(line: str) -> None:
    """Print a launcher line to stderr, among the children's output."""
    with suppress(OSError):  # stderr may be a file on a full disk, and the children still need supervision
        print(f"slipway: {line}", file=sys.stderr, flush=True)


class Supervisor:
    """Single-threaded supervisor: all work happens in `tick`."""

    def __init__(self, env: Mapping[str, str], lock: int) -> None:
        self._env = env
        self._lock = lock
        self._children: list[_Child] = []
        self._reaper = Reaper(lock)
        self._signals = 0
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._on_signal)

    def add(self, *programs: Program) -> None:
        """Start programs. `stop` ends them in reverse order."""
        for program in programs:
            child = _Child(program)
            self._children.append(child)
            self._start(child)

    def run_until(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Supervise the children until `done`. False after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            if deadline is not None and time.monotonic() > deadline:
                return False
            self.tick()
        return True

    def ready(self, *names: str) -> bool:
        """Check whether each named program, or all, has been ready once."""
        return all(child.ready for child in self._children if not names or child.program.name in names)

    def tick(self) -> None:
        """Sleep, then check each child. Raises Stopped after a signal, CannotStart when a program fails to start."""
        time.sleep(TICK_SECONDS)
        if self._signals:
            raise Stopped
        for child in self._children:
            self._check(child)

    def restart(self, *names: str) -> None:
        """Restart programs with new code, so not in a copy of the launcher, and reset their failure counts."""
        for child in self._children:
            if child.program.name in names:
                if child.process is not None:
                    self._end(child.process, RESTART_SECONDS, 1)
                    child.process = None
                child.failures = 0
                child.program = replace(child.program, forked=False)
                self._start(child)

    def stop(self) -> None:
        """Stop all, last added first: SIGTERM, then SIGKILL after `stop_seconds`, or at once after a second signal."""
        patience = max(1, self._signals)
        for child in reversed(self._children):
            if child.process is not None:
                self._end(child.process, child.program.stop_seconds, patience)
        self._reaper.close()

    def _end(self, process: Process, seconds: float, patience: int) -> None:
        deadline = time.monotonic() + seconds
        if process.poll() is None:
            process.terminate()
        while process.poll() is None and time.monotonic() < deadline and self._signals <= patience:
            time.sleep(TICK_SECONDS)
        kill_session(process.pid)
        process.wait()

    def _check(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.start_at and not (child.program.once and child.ready):
                self._start(child)
        elif (code := child.process.poll()) is not None:
            self._handle_exit(child, code)
        elif not child.ready and not child.program.once:
            check = child.program.ready
            child.ready = check() if check else now - child.started_at > ASSUMED_READY_SECONDS

    def _start(self, child: _Child) -> None:
        child.started_at = time.monotonic()
        self._update_reaper()
        start = fork if child.program.forked else spawn
        child.process = start(child.program.command, self._env, (self._lock,), self._reaper.register)

    def _update_reaper(self) -> None:
        self._reaper.watch(child.process.pid for child in self._children if child.process is not None)

    def _handle_exit(self, child: _Child, code: int) -> None:
        assert child.process is not None
        kill_session(child.process.pid)  # its children would keep its port, or repeat its work
        child.process = None
        self._update_reaper()
        program, ending = child.program, f"signal {-code}" if code < 0 else f"exit code {code}"
        if program.once and code == 0:
            child.ready = True
            return
        if time.monotonic() - child.started_at > STABLE_SECONDS:
            child.failures = 0
        child.failures += 1
        if not child.ready and (program.once or child.failures >= MAX_START_FAILURES):
            raise CannotStart(f"{program.name} does not start ({ending}); {program.failure_hint}.")
        wait = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** (child.failures - 1))
        child.start_at = time.monotonic() + wait
        log(f"{program.name} ended ({ending}); starting it again in {wait:g} s")

    def _on_signal(self, signum: int, frame: object) -> None:
        self._signals += 1
