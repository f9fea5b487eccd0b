"""Where the processes of a machine leave their figures: the web workers in one folder, the task workers beside it.

Apart from `metrics`, because a process must have joined its folder before `prometheus_client` is first imported.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path


def of_tasks(web: Path) -> Path:
    """The folder of the task workers whose figures are told by the web server that leaves its own in `web`."""
    return web.with_name(f"{web.name}-tasks")


def join(path: Path) -> None:
    """This process, and those it starts, count in `path`. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(path)


def clear(path: Path) -> None:
    """Count from nought: nobody who counts here is alive. Raises OSError."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True, exist_ok=True)


def forget_the_dead(path: Path) -> None:
    """The gauges of processes that were killed are not counted any more; their counters stay."""
    for file in path.glob("gauge_live*.db"):
        with suppress(PermissionError):  # somebody lives, if not for us
            try:
                os.kill(int(file.stem.rpartition("_")[2]), 0)
            except ProcessLookupError:
                file.unlink(missing_ok=True)
