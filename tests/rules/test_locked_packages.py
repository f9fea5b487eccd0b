"""Lock files: every package with its hashes, a replaced package refused, every licence known."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from scripts import licences_page
from tests.conftest import ROOT

LOCKS = sorted(path.name for path in ROOT.glob("requirements*.txt"))
# Permissive, or met by installing the package unmodified and apart.
FINE = {
    "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MIT-0", "PSF-2.0",
    "LGPL-2.1-or-later", "LGPL-3.0-only", "MPL-2.0",
}  # fmt: skip


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_file_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    packages = re.split(r"(?m)^(?=[a-z0-9])", text)[1:]
    assert len(packages) == len(licences_page.pins(name)) > 5
    assert [package for package in packages if "--hash=sha256:" not in package] == []
    assert "://" not in text and "index-url" not in text


def test_every_installation_asks_for_hashes() -> None:
    for name in ("Dockerfile", "scripts/setup.sh", "docs/deploy.md"):
        installs = re.findall(r"(?m)^.*(?:pip|-m pip).* install .*requirements.*$", (ROOT / name).read_text())
        assert all("--require-hashes" in line for line in installs), name
    assert "--generate-hashes" in (ROOT / "Makefile").read_text()
    assert sorted(f"{path.stem}.txt" for path in ROOT.glob("requirements*.in")) == LOCKS


def wheel(folder: Path, text: str) -> Path:
    """Write a wheel of the package `harbor` 1.0, whose one module has this text."""
    path = folder / "harbor-1.0-py3-none-any.whl"
    info = "harbor-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("harbor.py", text)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: harbor\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            f"{info}/RECORD", f"harbor.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    return path


def test_a_package_replaced_under_its_version_is_refused(tmp_path: Path) -> None:
    """Install with the project's own script from a folder of wheels, first as locked and then replaced."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    path = wheel(tmp_path, "TEXT = 'as locked'\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"harbor==1.0 --hash=sha256:{digest}\n")

    def install() -> subprocess.CompletedProcess[str]:
        told = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_NO_CACHE_DIR": "1"}
        told |= {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(tmp_path), "UV_NO_CACHE": "1"}
        return subprocess.run(
            ["scripts/setup.sh", "requirements.txt"],
            check=False,
            cwd=tmp_path,
            env={**os.environ, **told},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def said() -> str:
        command = [tmp_path / ".venv/bin/python", "-c", "import harbor; print(harbor.TEXT)"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    first = install()
    assert first.returncode == 0, first.stderr
    assert said() == "as locked"

    wheel(tmp_path, "TEXT = 'replaced'\n")
    shutil.rmtree(tmp_path / ".venv")
    refused = install()
    assert refused.returncode != 0 and digest in refused.stderr, refused.stderr

    lock.write_text("harbor==1.0\n")
    assert install().returncode != 0, "a line without a hash"


def test_page_of_licences_is_generated_and_every_licence_is_fine() -> None:
    page = licences_page.page()
    assert page == (ROOT / "docs" / "licences.md").read_text()
    table = page.partition("## No release")[0]
    licences = set(re.findall(r"(?m)^\| \S+ \| \S+ \| (.+) \|$", table)) - {"licence", "---"}
    words = {word for licence in licences for word in re.split(r" AND | OR |[()]", licence) if word}
    assert words <= FINE


def test_aged_packages_are_still_used() -> None:
    used = {name for name, _ in licences_page.pins("requirements.txt")}
    assert licences_page.AGED.keys() <= used
    assert licences_page.ELSEWHERE.keys() <= used
