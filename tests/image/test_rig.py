"""Without a Docker of its own: build with the rig, then run the other tests of this folder inside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.image.engine import IMAGE, RIG, ROOT

STAND_INS = {
    "redis:7-alpine": ["redis-server", "--", "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no"],
    "pgvector/pgvector:pg16": ["postgresql-15", "--", "bash"],
    "nginx:1.28-alpine": ["nginx-light", "wget", "--", "nginx", "-g", "daemon off;"],
}


def run(*command: str, **env: str) -> str:
    done = subprocess.run(
        command, check=False, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.skipif(not RIG, reason="SLIPWAY_RIG names no rig")
@pytest.mark.skipif(bool(os.environ.get("SLIPWAY_IMAGE_IS_BUILT")), reason="this is the inside of the rig")
@pytest.mark.timeout(1800)
def test_the_image_and_compose_in_the_rig() -> None:
    rig = Path(RIG)
    run(f"{rig}/base-image", "3.12")
    for name, how in STAND_INS.items():
        run(f"{rig}/stand-in", name, *how)
    run(f"{rig}/build", str(ROOT), f"docker.io/library/{IMAGE}")
    tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "-q", "tests/image"]
    told = run(f"{rig}/within", *tests, SLIPWAY_IMAGE_IS_BUILT="1")
    print(told)
    assert "no Docker answers" not in told
