"""The package: wheel and sdist, what is in them, and what the code needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import service
from tests.conftest import ROOT

CLIENT = ROOT / "client"
ALLOWED = {"anyio", "httpx2", "slipway_client"}
ONLY_CLI = {"rich"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build as `make client` does, into another folder."""
    folder = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--quiet",
        "--outdir",
        str(folder),
        str(CLIENT),
    ]
    subprocess.run(command, check=True, timeout=120)
    return folder


def test_the_wheel_has_the_package_its_types_and_its_command(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        about = f"slipway_client-{service.__version__}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{about}/METADATA").decode())
        assert b"slipway=slipway_client.cli:main" in archive.read(f"{about}/entry_points.txt").replace(
            b" ", b""
        )
    sources = {path.relative_to(CLIENT).as_posix() for path in (CLIENT / "slipway_client").rglob("*.py")}
    assert sources | {"slipway_client/py.typed"} == {name for name in names if not name.startswith(about)}
    assert metadata["Version"] == service.__version__ and metadata["License-Expression"] == "Apache-2.0"
    needed = metadata.get_all("Requires-Dist") or []
    names = sorted(re.match(r"[a-z0-9]+", each)[0] for each in needed)  # type: ignore[index]
    assert names == ["anyio", "httpx2", "rich"]
    assert next(each for each in needed if each.startswith("rich")).endswith('extra == "cli"')


def test_the_sdist_has_what_the_wheel_is_made_of(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "slipway_client/client.py",
        "slipway_client/py.typed",
    } <= names


def test_the_licence_is_that_of_the_service() -> None:
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_package_imports_what_it_declares_and_nothing_of_the_service() -> None:
    for path in sorted((CLIENT / "slipway_client").rglob("*.py")):
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
        packages = {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names)
        cli = path.parent.name == "cli"
        assert packages <= (ALLOWED | ONLY_CLI if cli else ALLOWED), path
        assert cli or not any(f"{name}.".startswith("slipway_client.cli.") for name in found), path


def test_the_command_says_what_is_missing() -> None:
    hidden = "import sys; sys.modules['rich'] = None; from slipway_client.cli import main; main()"
    command = [sys.executable, "-c", hidden]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(CLIENT)}
    )
    assert done.returncode == 1 and "pip install 'slipway-client[cli]'" in done.stderr


def test_no_file_and_no_function_is_long() -> None:
    for path in sorted((CLIENT / "slipway_client").rglob("*.py")):
        source = path.read_text()
        assert len(source.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 40, f"{path}: {node.name}"
