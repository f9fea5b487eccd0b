"""`make bench`: Slipway beside every peer, in one run, with everything on that users run.

Loopback only, bounded in counts and time, ends by itself. What it finds is kept in benchmarks/results/ as it goes; a
run of all cases on all servers is written into docs/performance.md at its end, and any run with `--write`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import cases, lifecycle, production_cases, report, summary
from benchmarks.fleet import STARTS, Fleet
from benchmarks.growth import growth
from benchmarks.machine import describe
from benchmarks.measure import BARE, many_files
from benchmarks.processes import orderly_end
from benchmarks.runner import Run

RESULTS = Path(__file__).parent / "results"
NAMES = ("slipway", BARE, "fastapi", "litellm", "agno")
CASES: dict[str, Callable[[Run], None]] = {
    "0": cases.capacity,
    "PP": production_cases.proxy_alone,
    "PT": production_cases.count_trips,
    "PB": production_cases.hit,
    "PA": production_cases.invoke,
    "PE": production_cases.invoke_of_eight,
    "PG": production_cases.invoke_of_peers,
    "PD": production_cases.streams,
    "PC": production_cases.calls,
    "PM": production_cases.make_run,
    "A": cases.invoke,
    "B": cases.hit,
    "C": cases.calls,
    "D": cases.streams,
    "R": cases.relayed,
    "M": cases.most_streams,
    "E": lifecycle.start_and_memory,
    "F": lifecycle.client_gone,
    "G": lifecycle.worker_killed,
    "H": growth,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        default=",".join(CASES),
        help=f"cases, or their first letters, of {','.join(CASES)}",
    )
    parser.add_argument(
        "--peers",
        default=",".join(NAMES),
        help=f"servers, of {','.join(NAMES)}; slipway@FOLDER: another checkout, measured in turn with this one",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="less than 1: fewer requests, for a rough look"
    )
    parser.add_argument("--write", action="store_true", help="write docs/performance.md in any case")
    parser.add_argument(
        "--renew",
        type=Path,
        metavar="FILE",
        help="write the page of this kept run, with these cases measured anew",
    )
    found = parser.parse_args()
    found.only, found.peers = found.only.split(","), found.peers.split(",")
    unknown = [one for one in found.only if not selected([one])]
    unknown += [one for one in found.peers if one not in (*STARTS, BARE) and not _is_checkout(one)]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}")
    return found


def _is_checkout(name: str) -> bool:
    kind, _, folder = name.partition("@")
    return kind == "slipway" and (Path(folder) / "gunicorn.conf.py").is_file()


def selected(asked: list[str]) -> list[str]:
    """Cases that begin with one of `asked`: P is every part of production's shape, PB its cache hit."""
    return [case for case in CASES if case.startswith(tuple(asked))]


def main() -> None:
    asked = arguments()
    many_files()
    orderly_end()
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / time.strftime("%Y%m%d-%H%M%S.json", time.gmtime())
    with (
        tempfile.TemporaryDirectory(prefix="slb", ignore_cleanup_errors=True) as folder,
        Fleet(Path(folder)) as fleet,
    ):
        run = Run(fleet, asked.peers, out, asked.scale, describe())
        try:
            for case in selected(asked.only):
                measured(run, case)
        finally:
            run.save()
            print(f"kept in {out}")
        for line in summary.beside(summary.Summary(run.public()), "slipway"):
            print(line)
    whole = selected(asked.only) == list(CASES) and asked.scale == 1
    if asked.renew:
        report.write(renewed(json.loads(asked.renew.read_text()), run.public(), asked.only))
    elif whole or asked.write:
        report.write(run.public())
    if asked.renew or whole or asked.write:
        print("written to docs/performance.md")


def renewed(kept: dict[str, Any], new: dict[str, Any], asked: list[str]) -> dict[str, Any]:
    """Return `kept` with the cases of `asked` as in `new`; `renewed` tells which, when and of which commit."""
    again = (*asked, *{one["case"] for one in new["figures"]})
    figures = [one for one in kept["figures"] if not one["case"].startswith(again)] + new["figures"]
    found = {case: value for case, value in kept["found"].items() if not case.startswith(again)}
    told = dict.fromkeys(asked, f"{new['machine']['date']}, commit {new['machine']['commit']}")
    return kept | {
        "figures": figures,
        "found": found | new["found"],
        "loads": kept["loads"] | new["loads"],
        "renewed": kept.get("renewed", {}) | told,
    }


def measured(run: Run, case: str) -> None:
    """One case; its trouble does not end the run."""
    try:
        CASES[case](run)
    except Exception as error:
        traceback.print_exc()
        run.note(case, "run", "fault", repr(error))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
