"""The examples of docs/client.md run as they stand, one after the other, in one Python process without our packages."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.conftest import ROOT
from tests.launcher.house import Launcher


def test_the_examples_run(launched: Launcher) -> None:
    text = (ROOT / "docs" / "client.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(blocks) >= 9
    program = "\n".join(blocks).replace("http://127.0.0.1:8000", launched.url)
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd="/")
    assert done.returncode == 0, done.stderr
    for said in (
        "admin",
        "key_",
        "30 days",
        "[calculator ",
        "397.8",
        "succeeded",
        "sch_",
        "None [] []",
        "['user', 'assistant']",
        "/inptu",
    ):
        assert said in done.stdout, done.stdout
