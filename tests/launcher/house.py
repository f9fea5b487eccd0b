"""Real launcher with all its programs, identified by its state folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.conftest import ROOT, free_port, wait_until


@dataclass
class Launcher:
    """`start` returns once the banner is there."""

    home: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def output(self) -> str:
        return self.home.with_suffix(".out").read_text()

    def environ(self, **changes: str) -> dict[str, str]:
        mine = {
            "SLIPWAY_HOME": str(self.home),
            "PORT": str(self.port),
            "WEB_CONCURRENCY": "1",
            "THREADS": "8",
        }
        free = {"OFFLINE_MODEL_PORT": "0", "MAIL_PORT": "0", "CALENDAR_PORT": "0"}
        given = {
            name: value for name, value in os.environ.items() if name not in ("MAIL_URL", "CALENDAR_URL")
        }
        return {**given, **mine, **free, "GRACEFUL_TIMEOUT": "5", **changes}

    def start(self, *command: str) -> None:
        with self.home.with_suffix(".out").open("wb") as out:
            self.process = subprocess.Popen(
                command or (sys.executable, "-m", "launcher"),
                cwd=ROOT,
                env=self.environ(),
                stdout=out,
                stderr=out,
            )
        wait_until(lambda: "Slipway is up" in self.output or self.process.poll() is not None, "the banner")  # type: ignore[union-attr]
        assert self.process.poll() is None, self.output

    def start_another(self, **changes: str) -> subprocess.CompletedProcess[str]:
        """Start a second launcher that is expected to exit."""
        return subprocess.run(
            (sys.executable, "-m", "launcher"),
            cwd=ROOT,
            env=self.environ(**changes),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def healthy(self) -> bool:
        return httpx2.get(f"{self.url}/health", timeout=5).status_code == 200

    def family(self) -> dict[int, str]:
        """List living processes with this state folder, launcher included, with their names and command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                command = (folder / "comm").read_text().replace(
                    "\n", " "
                ) + command  # that of a fork is the launcher's
                environ = (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # it has just ended, or is not ours
                continue
            # Redis writes its title over its environment: it is known by its socket.
            if f"SLIPWAY_HOME={self.home}".encode() in environ or f"{self.home}/" in command:
                found[int(folder.name)] = command
        return found

    def pid_of(self, part: str) -> int:
        """Find the launcher's oldest child whose command line contains `part`."""
        return min(pid for pid, command in self.family().items() if part in command)

    def end(self) -> None:
        """Kill the remains of a failed test."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)
