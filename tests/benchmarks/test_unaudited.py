"""Start file of a service without rows of the audit, for the benchmark of what they cost."""

from __future__ import annotations

import subprocess

from tests.conftest import PYTHON, ROOT

LEFT = """
import sys
from benchmarks import unaudited
import service.app
found = {name: getattr(module, "record", None) for name, module in sys.modules.items() if name.startswith("service.")}
taken = {name for name, value in found.items() if value is unaudited.nothing}
print(sorted(name for name, value in found.items() if callable(value) and value is not unaudited.nothing), len(taken))
"""


def test_every_module_takes_the_record_that_writes_nothing() -> None:
    done = subprocess.run(
        [PYTHON, "-c", LEFT], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    left, taken = done.stdout.rsplit(" ", 1)
    assert left == "[]" and int(taken) > 5
