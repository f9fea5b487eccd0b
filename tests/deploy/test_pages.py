"""Pages about deploying: their shell lines parse, and the files that they name are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs" / "deploy").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_shell_lines_parse_and_name_files_that_are_there(page: Path) -> None:
    text = page.read_text()
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```", text, re.M | re.S)
    for indent, block in blocks:
        lines = re.sub(rf"^{indent}", "", block, flags=re.M)
        done = subprocess.run(
            ["bash", "-n"], input=lines, capture_output=True, text=True, timeout=20, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), lines
        for path in re.findall(r"\bdeploy/[a-z][\w./-]*", lines):
            assert (ROOT / path).exists(), path
    assert blocks
