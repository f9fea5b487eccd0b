"""Docker, or what answers as Docker, by its own command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RIG = os.environ.get("SLIPWAY_RIG", "")
IMAGE = "slipway:test"


def docker(*arguments: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["docker", *arguments], check=False, capture_output=True, text=True, timeout=timeout
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def reachable() -> bool:
    """Whether a daemon answers; where DOCKER_HOST names one it may still be starting."""
    end = time.monotonic() + (10 if os.environ.get("DOCKER_HOST") else 0)
    while shutil.which("docker"):
        if docker("version", check=False).returncode == 0:
            return True
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    return False


def check_health(ended: threading.Event) -> None:
    """Health checks of every container: a Docker daemon runs them, Podman without systemd does not.

    The rig asks too, one after the other, and is stuck for minutes on one that was stopped meanwhile.
    """
    while not ended.wait(1):
        running = subprocess.run(
            ["podman", "ps", "-q"], check=False, capture_output=True, text=True, timeout=30
        )
        asked = [["timeout", "5", "podman", "healthcheck", "run", name] for name in running.stdout.split()]
        children = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command in asked
        ]
        for child in children:
            child.wait()


@dataclass
class Compose:
    """One project in a folder of its own, so that its secrets and its name are the test's."""

    folder: Path
    files: Sequence[str]
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 300) -> str:
        files = [part for name in self.files for part in ("-f", name)]
        command = ["docker", "compose", *files, *arguments]
        env = {**os.environ, "SLIPWAY_TAG": IMAGE.partition(":")[2], **self.env}
        done = subprocess.run(
            command, check=False, cwd=self.folder, env=env, capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode:
            raise AssertionError(
                f"{self.logs()}\n{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        return done.stdout

    def logs(self) -> str:
        return self("ps", "--all", check=False) + self("logs", "--tail", "30", check=False)

    def exit_code(self, service: str) -> int:
        container = self("ps", "--all", "--quiet", service).strip()
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout)


@contextmanager
def composed(folder: Path, *files: str, **env: str) -> Iterator[Compose]:
    """Copies of the Compose files and what they mount, not started yet; at the end all is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "nginx", folder / "nginx", dirs_exist_ok=True)
    for name in ("docker-compose.yml", "docker-compose.override.yml", "tests/image/stand-ins.yml"):
        shutil.copy(ROOT / name, folder)
    compose = Compose(folder, [*files, *(["stand-ins.yml"] if RIG else [])], env)
    try:
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", "5", check=False)
