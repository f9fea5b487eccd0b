"""`make bench-quick`: a few minutes, and ratios beside those that were kept. `--keep` keeps the new ones.

Invoke, cache hit and 100 streams of Slipway: in production's shape beside FastAPI with and without rows in PostgreSQL,
then on loopback beside the plain FastAPI application and the call without any service.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import cases, production_cases
from benchmarks.__main__ import RESULTS
from benchmarks.fleet import Fleet
from benchmarks.machine import describe
from benchmarks.measure import BARE, many_files
from benchmarks.processes import orderly_end
from benchmarks.runner import Run
from benchmarks.summary import Ratio, Summary

KEPT = Path(__file__).parent / "kept.json"
CASES = {
    "PB64@1": "hit, 1 ms",
    "PA16@1": "invoke, 1 ms",
    "PD100@1": "streams, 1 ms",
    "A": "invoke",
    "B": "cache hit",
    "D100": "100 streams",
}
PEERS = ("fastapi", BARE)
OTHERS = (*PEERS, "fastapi-rows")
ROUNDS = 3
WORSE = 1.15  # a ratio that grew by more than this, and out of its spread, is pointed at


def ratios(of: Summary) -> dict[str, dict[str, float]]:
    """CPU of Slipway to that of the others: median, least and most, by name."""
    found: dict[str, dict[str, float]] = {}
    for case in CASES:
        for other in OTHERS:
            one = of.ratio(case, "cpu_ms", "slipway", other)
            if one:
                rounded = {name: round(value, 3) for name, value in vars(one).items()}
                found[f"{case} slipway/{other}"] = rounded
    return found


def compare(now: dict[str, dict[str, float]], kept: dict[str, dict[str, float]]) -> list[str]:
    """One line for each ratio."""
    told = []
    for name, ratio in now.items():
        case, _, pair = name.partition(" ")
        before = kept.get(name)
        line = f"  {CASES[case]:13} {pair:21} {Ratio(**ratio)!s:22}"
        if before:
            line += f"  kept {Ratio(**before)!s:22}"
            if ratio["median"] > WORSE * before["median"] and ratio["least"] > before["most"]:
                line += "  WORSE"
        told.append(line)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quick", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep these ratios for the next comparison")
    parser.add_argument("--scale", type=float, default=1.0, help="less than 1: fewer requests")
    asked = parser.parse_args()
    many_files()
    orderly_end()
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / time.strftime("quick-%Y%m%d-%H%M%S.json", time.gmtime())
    with (
        tempfile.TemporaryDirectory(prefix="slb", ignore_cleanup_errors=True) as folder,
        Fleet(Path(folder)) as fleet,
    ):
        run = Run(fleet, ("slipway", *PEERS), out, asked.scale, describe())
        production_cases.quick(run, ROUNDS)
        cases.invoke(run, 500, ROUNDS)
        cases.hit(run, 1_000, ROUNDS)
        cases.streams(run, (100,), ROUNDS)
        now = ratios(Summary(run.public()))
        tell(now, run.machine, asked.keep)


def tell(now: dict[str, dict[str, float]], machine: dict[str, Any], keep: bool) -> None:
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    print(f"CPU of all processes per request, as ratios (kept: commit {kept.get('commit', 'none')})")
    print("\n".join(compare(now, kept.get("ratios", {}))))
    if keep:
        told = {name: machine[name] for name in ("date", "commit", "processor", "cores")}
        KEPT.write_text(json.dumps({**told, "ratios": now}, indent=1) + "\n")
        print(f"kept in {KEPT}")


if __name__ == "__main__":
    main()
