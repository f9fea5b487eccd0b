"""Keeps a handful of programs running: starts, restarts with backoff, ends in order."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from launcher.process import spawn
from launcher.reaper import Reaper, kill_session
from launcher.state import CannotStart

TICK_SECONDS = 0.05
FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 10.0
FIRST_TRIES = 3  # a program that ends this often before it was ever ready ends the start
SETTLED_SECONDS = 5.0  # a program without a check of its own counts as ready after this
STABLE_SECONDS = 30.0  # after this the backoff begins anew
RESTART_SECONDS = 3.0  # for what is under way when the code has changed; runs are taken up by the new process


class Stopped(Exception):
    """SIGTERM, SIGINT or SIGHUP: time to end everything."""


@dataclass(frozen=True)
class Program:
    """What to run. `ready` must answer within a moment; a `once` program is ready when it has ended well."""

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool] | None = None
    once: bool = False
    says_why: str = "its own lines above say why"
    stop_seconds: float = 5.0


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    failures: int = 0
    started_at: float = 0.0
    start_at: float = 0.0


def say(line: str) -> None:
    """A line of the launcher's own, beside those of its children."""
    print(f"slipway: {line}", file=sys.stderr, flush=True)


class Supervisor:
    """Single-threaded: everything happens in `pause`."""

    def __init__(self, env: Mapping[str, str], lock: int) -> None:
        self._env = env
        self._lock = lock
        self._children: list[_Child] = []
        self._reaper = Reaper(lock)
        self._signals = 0
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._on_signal)

    def add(self, *programs: Program) -> None:
        """Start these. `stop` ends what was added last first."""
        for program in programs:
            child = _Child(program)
            self._children.append(child)
            self._start(child)

    def until(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Look after the children until `done`. False when it took longer than `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            if deadline is not None and time.monotonic() > deadline:
                return False
            self.pause()
        return True

    def ready(self, *names: str) -> bool:
        """Each of these has been ready once; all programs when none is named."""
        return all(child.ready for child in self._children if not names or child.program.name in names)

    def pause(self) -> None:
        """One round. Raises Stopped after a signal, CannotStart when a program does not come up."""
        time.sleep(TICK_SECONDS)
        if self._signals:
            raise Stopped
        for child in self._children:
            self._look_after(child)

    def restart(self, *names: str) -> None:
        """End and start these anew, whatever they have failed with before."""
        for child in self._children:
            if child.program.name in names:
                if child.process is not None:
                    self._end(child.process, RESTART_SECONDS, 1)
                    child.process = None
                child.failures = 0
                self._start(child)

    def stop(self) -> None:
        """End all, last added first: SIGTERM, then SIGKILL after its time, or at once after a second signal."""
        patience = max(1, self._signals)
        for child in reversed(self._children):
            if child.process is not None:
                self._end(child.process, child.program.stop_seconds, patience)
        self._reaper.close()

    def _end(self, process: subprocess.Popen[bytes], seconds: float, patience: int) -> None:
        deadline = time.monotonic() + seconds
        if process.poll() is None:
            process.terminate()
        while process.poll() is None and time.monotonic() < deadline and self._signals <= patience:
            time.sleep(TICK_SECONDS)
        kill_session(process.pid)
        process.wait()

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.start_at and not (child.program.once and child.ready):
                self._start(child)
        elif (code := child.process.poll()) is not None:
            self._ended(child, code)
        elif not child.ready and not child.program.once:
            check = child.program.ready
            child.ready = check() if check else now - child.started_at > SETTLED_SECONDS

    def _start(self, child: _Child) -> None:
        child.started_at = time.monotonic()
        self._tell_reaper()
        child.process = spawn(child.program.command, self._env, (self._lock,), self._reaper.enlist)

    def _tell_reaper(self) -> None:
        self._reaper.watch(child.process.pid for child in self._children if child.process is not None)

    def _ended(self, child: _Child, code: int) -> None:
        assert child.process is not None
        kill_session(child.process.pid)  # what it had started would keep its port, or do its work twice
        child.process = None
        self._tell_reaper()
        program, how = child.program, f"signal {-code}" if code < 0 else f"exit code {code}"
        if program.once and code == 0:
            child.ready = True
            return
        if time.monotonic() - child.started_at > STABLE_SECONDS:
            child.failures = 0
        child.failures += 1
        if not child.ready and (program.once or child.failures >= FIRST_TRIES):
            raise CannotStart(f"{program.name} does not start ({how}); {program.says_why}.")
        wait = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (child.failures - 1))
        child.start_at = time.monotonic() + wait
        say(f"{program.name} ended ({how}); starting it again in {wait:g} s")

    def _on_signal(self, signum: int, frame: object) -> None:
        self._signals += 1
