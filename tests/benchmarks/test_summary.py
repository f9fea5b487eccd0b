"""Medians of ratios, goals, and the page that is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import goals, plots, quick, report
from benchmarks.__main__ import renewed
from benchmarks.goals import Goal
from benchmarks.measure import Figures, quantile
from benchmarks.summary import Ratio, Summary, beside, ratio

MACHINE = {
    "date": "2026-11-25", "commit": "abc", "processor": "x", "cores": 2, "memory_gib": 4.0,
    "system": "Linux", "python": "3.11", "versions": {"Slipway": {"flask": "3"}, "agno_os": {}},
}  # fmt: skip


def figures(server: str, case: str, round_number: int, **changes: Any) -> dict[str, Any]:
    one = Figures(
        server, case, round_number, clients=16, good=100, errors={}, seconds=1.0, p50=10.0, p99=20.0,
        first_p50=0.0, first_p99=0.0, cpu_ms=1.0, redis_ms=0.1, database_ms=0.0, load_share=0.1,
        upstream_share=0.1, load1=0.5,
    )  # fmt: skip
    return {**one.public(), **changes}


def kept(*rows: dict[str, Any], **found: Any) -> Summary:
    return Summary(
        {"machine": MACHINE, "loads": {"A": [0.5]}, "minutes": 1, "figures": [*rows], "found": found}
    )


def goal(of: Summary, what: str) -> Goal:
    return next(one for one in (*goals.production(of), *goals.loopback(of)) if one.what == what)


def test_a_ratio_is_the_median_of_those_of_neighbours() -> None:
    assert ratio([1, 2, 9], [2, 2, 3]) == Ratio(1.0, 0.5, 3.0)
    assert ratio([1, 0, 3], [2, 1, 0]) == Ratio(
        0.5, 0.5, 0.5
    )  # a round with no good answer has no part in it
    assert ratio([], [1]) is None


def test_another_checkout_is_told_as_ratios() -> None:
    rows = [figures(name, "PB64@1", 0, cpu_ms=cpu) for name, cpu in (("slipway", 1.0), ("slipway@../x", 1.5))]
    [line] = beside(kept(*rows), "slipway")
    assert line.startswith("PB64@1 ") and "cpu_ms 1.50 (1.50 – 1.50)" in line and "errors 0" in line


def test_a_renewed_run_has_no_figure_of_a_case_twice() -> None:
    old = kept(*(figures("slipway", case, 0) for case in ("PB64@1", "PE64@1", "PF64@1", "A"))).kept
    new = kept(*(figures("slipway", case, 0, good=7) for case in ("PE64@1", "PF64@1"))).kept
    figured = renewed(old, new, ["PE"])["figures"]
    assert {one["case"]: one["good"] for one in figured} == {
        "PB64@1": 100,
        "PE64@1": 7,
        "PF64@1": 7,
        "A": 100,
    }
    assert len(figured) == 4


def test_rounds_are_paired_by_their_number() -> None:
    rows = [figures("slipway", "A", n, cpu_ms=cpu) for n, cpu in ((1, 4.0), (0, 1.0))]
    rows += [figures("fastapi", "A", n, cpu_ms=cpu) for n, cpu in ((0, 1.0), (1, 2.0))]
    assert kept(*rows).ratio("A", "cpu_ms", "slipway", "fastapi") == Ratio(1.5, 1.0, 2.0)


def test_quantiles() -> None:
    assert quantile([], 0.5) == 0
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(map(float, range(100))), 0.99) == 99.0


@pytest.mark.parametrize(("cpu", "met"), [(1.35, True), (1.45, False)])
def test_a_goal_that_is_a_ratio(cpu: float, met: bool) -> None:
    of = kept(figures("slipway", "A", 0, cpu_ms=cpu), figures("fastapi", "A", 0, cpu_ms=1.0))
    assert goal(of, "invoke, CPU per request, of FastAPI").met is met
    assert goal(of, "invoke, CPU per request, of LiteLLM").met is None


@pytest.mark.parametrize(
    ("p99", "errors", "met"),
    [(2290.0, {}, True), (2310.0, {}, False), (2100.0, {"503 overloaded": 1}, False)],
)
def test_a_goal_that_allows_no_error(p99: float, errors: dict[str, int], met: bool) -> None:
    of = kept(figures("slipway", "PC1000@1", 0, p99=p99, errors=errors))
    assert goal(of, "1,000 calls of 2 s, p99 of ideal").met is met


def test_goals_of_single_measurements() -> None:
    memory = {"slipway": {"idle_mib": 180, "open_stream_kib": 130, "start_s": [1.0, 1.2]}}
    memory["litellm"] = {"idle_mib": 1000, "start_s": [20.0]}
    of = kept(
        E=memory,
        M={"slipway": {"held": 1000}, "fastapi": {"held": 400}},
        F={"slipway": {"seconds": [0.5, 1.3]}},
    )
    assert goal(of, "idle memory, of LiteLLM").met is True
    assert goal(of, "memory per open stream").met is False
    assert goal(of, "start, of LiteLLM").met is True
    assert goal(of, "most streams held").met is True
    assert goal(of, "most streams held, of FastAPI").met is False
    assert goal(of, "client gone, to model call stopped").met is False


def test_the_goal_of_growth_counts_the_database() -> None:
    rows = [
        figures(f"runs {runs}", "HA", 0, cpu_ms=1.0, database_ms=own)
        for runs, own in ((10_000, 1.0), (1_000_000, 1.5))
    ]
    assert goal(kept(*rows), "invoke, CPU at 1,000,000 kept runs of that at 10,000").met is False


@pytest.mark.parametrize(("good", "met"), [(90, True), (89, False)])
def test_a_goal_that_is_a_rate(good: int, met: bool) -> None:
    of = kept(figures("slipway", "PB64@1", 0, good=good), figures("fastapi", "PB64@1", 0, good=100))
    assert goal(of, "cache hit, requests a second, of FastAPI").met is met


@pytest.mark.parametrize(("p50", "met"), [(16.0, True), (16.1, False)])
def test_the_goal_of_the_distance(p50: float, met: bool) -> None:
    of = kept(figures("slipway", "PA1@1", 0, p50=p50), figures("slipway", "PA1@0", 0, p50=10.0))
    assert goal(of, "invoke, one client: p50 at 1 ms, less that at 0 ms").met is met


@pytest.mark.parametrize(("good", "met"), [(80, True), (79, False)])
def test_one_user_is_nearly_as_fast_as_eight(good: int, met: bool) -> None:
    of = kept(figures("slipway", "PF64@1", 0, good=good), figures("slipway", "PE64@1", 0, good=100))
    assert goal(of, "invoke, 64 clients: rate of one user, of eight users").met is met


def trips(way: int, idle: float = 1.0) -> dict[str, Any]:
    one = {name: {"redis": 1, "postgres": way} for name in ("way", "all")}
    idle_parts = {"redis": 0.0, "postgres": idle}
    return {"slipway": {"hit": one, "invoke": one, "stream": one, "idle": idle_parts}}


@pytest.mark.parametrize(("way", "met"), [(4, True), (5, False)])
def test_the_goal_of_trips(way: int, met: bool) -> None:
    of = kept(PT=trips(way))
    assert goal(of, "trips of an invoke to PostgreSQL").met is met
    assert goal(of, "trips of an invoke to Redis").met is True
    assert goal(of, "trips of a cache hit").met is False
    assert goal(of, "trips of an idle process, a second").met is True


def test_the_page_names_a_missed_goal(tmp_path: Path) -> None:
    rows = [figures(name, "PB64@1", 0, cpu_ms=cpu) for name, cpu in (("slipway", 1.5), ("fastapi", 1.0))]
    rows += [figures("slipway", "PC1000@1", 0, p99=2100.0, errors={"503": 3})]
    report.write(kept(*rows, PT=trips(5)).kept, tmp_path)
    page = (tmp_path / "performance.md").read_text()
    assert "| cache hit, CPU, of FastAPI | at most 1.3 | 1.50 (1.50 – 1.50) | **missed** |" in page
    assert "| cache hit, requests a second, of FastAPI | at least 0.9 | 1.00 (1.00 – 1.00) | met |" in page
    assert (
        "| 1,000 calls of 2 s, p99 of ideal | at most 1.15, no error | 1.05, 3 errors | **missed** |" in page
    )
    assert "| trips of an invoke to PostgreSQL | at most 4 | 5 | **missed** |" in page
    assert "| 200 streams, CPU, of FastAPI | at most 0.5 | – | not measured |" in page
    assert page.index("production's shape") < page.index("on loopback")


def test_the_page_is_written_whole_or_in_part(tmp_path: Path) -> None:
    rows = [figures(name, case, 0) for name in ("slipway", "fastapi") for case in ("A", "B", "C500", "D200")]
    of = kept(*rows, A={"litellm": {"fault": "not installed"}})
    report.write(of.kept, tmp_path)
    page = (tmp_path / "performance.md").read_text()
    assert "**Missing rows:** A, LiteLLM proxy (not installed)." in page
    assert "| Slipway | 1.00 | 0.10 | 10.0 |" in page
    assert {path.name for path in (tmp_path / "performance").iterdir()} == {
        "production.svg", "cpu.svg", "c.svg", "d.svg",
    }  # fmt: skip
    report.write(kept().kept, tmp_path)  # nothing was measured


def test_the_page_says_when_a_run_was_a_small_one() -> None:
    assert "At scale" not in report.page(kept())
    assert "At scale 0.1" in report.page(Summary({**kept().kept, "scale": 0.1}))


def test_plots_escape_and_cut() -> None:
    assert "a &lt; b" in plots.bars("a < b", "ms", {"x": 1.0})
    assert "polyline" in plots.lines("t", "×", {"x": [(1, 100.0), (2, 1.0)]}, most=4.0)


def test_quick_marks_regressions() -> None:
    before = {"A slipway/fastapi": {"median": 1.0, "least": 0.9, "most": 1.1}}
    worse = quick.compare({"A slipway/fastapi": {"median": 1.5, "least": 1.3, "most": 1.6}}, before)
    noise = quick.compare({"A slipway/fastapi": {"median": 1.5, "least": 1.0, "most": 1.6}}, before)
    assert "WORSE" in worse[0]
    assert "WORSE" not in noise[0]
