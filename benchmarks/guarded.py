"""`python -m benchmarks.guarded`: what guardrails cost an invoke and a stream, all of them on.

Two applications in one process, over SQLite, a real Redis and the offline model: one whose workspace has every kind of
guardrail on both sides, and rules. Their requests take turns, so that whatever else runs on the machine slows both.
Medians of milliseconds, and of CPU time; the last figure of a case is the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.profile import BODIES, application, caller
from service.types import DEFAULT_WORKSPACE
from tests.conftest import model_server, redis_in

WARM = 50  # requests before the first that counts
RULES = {"name": "rivals", "action": "mask", "words": ["acme*", "globex"], "patterns": ["PRJ-[0-9]{6}"]}
SIDE = {"personal_data": "redact", "secret": "redact", "control_characters": "mask", "rules": [RULES]}
GUARDRAILS: dict[str, Any] = {"input": SIDE, "output": SIDE}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guarded", description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="slp", ignore_cleanup_errors=True) as name,
        model_server() as model,
        redis_in(Path(name) / "redis-plain") as plain,
        redis_in(Path(name) / "redis-guarded") as guarded,
    ):
        apps = {}
        for kind, redis in (("plain", plain), ("guarded", guarded)):
            folder = Path(name) / kind
            folder.mkdir()
            apps[kind] = application(folder, redis.url, model.url)
        apps["guarded"].extensions["slipway"].auth.workspaces.change(DEFAULT_WORKSPACE, guardrails=GUARDRAILS)
        for case in BODIES:
            calls = {kind: caller(app, case) for kind, app in apps.items()}
            times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in calls}
            for number in range(asked.requests + WARM):
                for kind in sorted(calls, reverse=bool(number % 2)):
                    began = time.perf_counter(), time.process_time()
                    calls[kind](number)
                    times[kind].append((time.perf_counter() - began[0], time.process_time() - began[1]))
            spent = {}
            for kind, each in times.items():
                wait, cpu = (statistics.median(column) * 1000 for column in zip(*each[WARM:], strict=True))
                spent[kind] = cpu
                print(f"{case}, {kind}: {wait:.2f} ms, {cpu:.2f} ms of CPU")
            print(f"{case}, guarded / plain: {spent['guarded'] / spent['plain']:.3f} of CPU")


if __name__ == "__main__":
    main()
