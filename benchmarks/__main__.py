"""`make bench`: Slipway beside every peer, in one run, with everything on that users run.

Loopback only, bounded in counts and time, ends by itself. What it finds is kept in benchmarks/results/ as it goes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import cases
from benchmarks.fleet import STARTS, Fleet
from benchmarks.machine import describe
from benchmarks.measure import BARE, many_files
from benchmarks.runner import Run

RESULTS = Path(__file__).parent / "results"
NAMES = ("slipway", "nginx", BARE, "fastapi", "litellm", "agno")
CASES: dict[str, Callable[[Run], None]] = {
    "0": cases.capacity,
    "A": cases.invoke,
    "B": cases.hit,
    "C": cases.calls,
    "D": cases.streams,
    "M": cases.most_streams,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(CASES), help=f"cases, of {','.join(CASES)}")
    parser.add_argument("--peers", default=",".join(NAMES), help=f"servers, of {','.join(NAMES)}")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="less than 1: fewer requests, for a rough look"
    )
    found = parser.parse_args()
    found.only, found.peers = found.only.split(","), found.peers.split(",")
    if unknown := {*found.only} - {*CASES} | {*found.peers} - {*STARTS, BARE}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    return found


def main() -> None:
    asked = arguments()
    many_files()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # what was started is ended too
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / time.strftime("%Y%m%d-%H%M%S.json", time.gmtime())
    with (
        tempfile.TemporaryDirectory(prefix="slb", ignore_cleanup_errors=True) as folder,
        Fleet(Path(folder)) as fleet,
    ):
        run = Run(fleet, asked.peers, out, asked.scale, describe())
        for letter in asked.only:
            CASES[letter](run)
    print(f"kept in {out}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
