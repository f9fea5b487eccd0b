"""`python -m benchmarks.sealing`: what sealed texts cost an invoke, a cached answer and a stream.

Two applications in one process, over SQLite, a real Redis and the offline model: one with a keyring. Their requests
take turns, so that whatever else runs on the machine slows both. Medians of milliseconds, and of CPU time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.profile import BODIES, application, caller
from tests.conftest import model_server, redis_in

WARM = 50  # requests before the first that counts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sealing", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="slp", ignore_cleanup_errors=True) as name,
        model_server() as model,
        redis_in(Path(name) / "redis-plain") as plain,
        redis_in(Path(name) / "redis-sealed") as sealed,
    ):
        apps = {}
        for kind, redis in (("plain", plain), ("sealed", sealed)):
            folder = Path(name) / kind
            folder.mkdir()
            keyring = f"sqlite:///{folder}/keyring.db" if kind == "sealed" else ""
            apps[kind] = application(folder, redis.url, model.url, KEYRING_URL=keyring)
        for case in BODIES:
            calls = {kind: caller(app, case) for kind, app in apps.items()}
            times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in calls}
            for number in range(asked.requests + WARM):
                for kind in sorted(calls, reverse=bool(number % 2)):
                    began = time.perf_counter(), time.process_time()
                    calls[kind](number)
                    times[kind].append((time.perf_counter() - began[0], time.process_time() - began[1]))
            for kind, each in times.items():
                wait, cpu = (statistics.median(column) * 1000 for column in zip(*each[WARM:], strict=True))
                print(f"{case}, {kind}: {wait:.2f} ms, {cpu:.2f} ms of CPU")
        sizes = {kind: os.path.getsize(Path(name) / kind / "home" / "slipway.db") for kind in apps}
        print(f"database: plain {sizes['plain']} bytes, sealed {sizes['sealed']} bytes")


if __name__ == "__main__":
    main()
