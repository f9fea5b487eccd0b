"""What a parent does before it forks, in a process of its own: it concerns all objects of a process."""

from __future__ import annotations

import subprocess

from tests.conftest import PYTHON, ROOT

SHARED = """
import gc, sys
from service.infra import forking
forking.share("colorsys")
print("colorsys" in sys.modules, gc.get_freeze_count() > 1000, gc.isenabled(), gc.get_threshold()[0])
"""


def test_what_is_imported_before_a_fork_is_no_garbage_collectors_concern() -> None:
    done = subprocess.run([PYTHON, "-c", SHARED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "True True True 25000\n", done.stderr
