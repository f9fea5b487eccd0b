"""Deploy by SSH: nothing is run for a wrong argument, and no key stays behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port

COMMIT = "3d3c42e5aac5ba805825da76410c181273ba90b1"
MACHINE = {
    "DEPLOY_TARGET": "nobody@127.0.0.1",
    "DEPLOY_KEY": "not a key",
    "DEPLOY_KNOWN_HOSTS": "127.0.0.1 x",
}


def deploy(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "deploy.sh", *arguments],
        check=False,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(folder), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("what", ["", "main", "abc; reboot", "$(reboot)", "--back; reboot", "ABC"])
def test_only_a_commit_or_back_is_taken(tmp_path: Path, what: str) -> None:
    done = deploy(tmp_path, what, **MACHINE)
    assert done.returncode == 2 and not list(tmp_path.iterdir()), done.stderr


@pytest.mark.parametrize("missing", MACHINE)
def test_each_secret_is_asked_for_by_its_name(tmp_path: Path, missing: str) -> None:
    done = deploy(tmp_path, COMMIT, **(MACHINE | {missing: ""}))
    assert done.returncode != 0 and missing in done.stderr


def test_a_target_is_no_option_of_ssh(tmp_path: Path) -> None:
    done = deploy(tmp_path, COMMIT, **(MACHINE | {"DEPLOY_TARGET": "-oProxyCommand=touch"}))
    assert done.returncode == 2 and "not user@host" in done.stderr


@pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")
def test_no_key_stays_behind_when_the_machine_is_away(tmp_path: Path) -> None:
    target = f"ssh://nobody@127.0.0.1:{free_port()}"
    done = deploy(tmp_path, "--back", **(MACHINE | {"DEPLOY_TARGET": target}))
    assert done.returncode == 255 and "refused" in done.stderr
    assert not list(tmp_path.iterdir()) and "not a key" not in done.stdout + done.stderr
