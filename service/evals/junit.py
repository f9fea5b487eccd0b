"""JUnit XML of a run of evals, for CI systems: a suite for each agent, a test for each case."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from service.evals.evaluation import FAULTS, Report, Row

# Characters that XML 1.0 cannot hold, even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MAX_TEXT = 4_000  # characters of one text


def write(report: Report, path: Path) -> None:
    """Write the report. Raises `OSError`."""
    suites = ET.Element("testsuites", name="slipway evals")
    by_agent: dict[str, list[Row]] = {}
    for row in report.rows:
        by_agent.setdefault(row.agent, []).append(row)
    for agent, rows in by_agent.items():
        counts = _counts(rows, together=agent in report.together)
        suite = ET.SubElement(suites, "testsuite", {"name": agent, **counts})
        for row in rows:
            _case(suite, row)
        if (p := report.together.get(agent)) is not None:
            test = ET.SubElement(suite, "testcase", classname=agent, name="all cases together")
            ET.SubElement(test, "failure", message=f"pass less often than in the baseline (p = {p:.2g})")
    ET.indent(suites)
    path.write_bytes(ET.tostring(suites, encoding="utf-8", xml_declaration=True))


def _counts(rows: list[Row], *, together: bool) -> dict[str, str]:
    """Return the attributes of a suite; `together`: it has a failure of all cases besides."""
    return {
        "tests": str(len(rows) + together),
        "failures": str(sum(row.verdict in FAULTS for row in rows) + together),
        "skipped": str(sum(row.verdict == "skipped" for row in rows)),
        "time": f"{sum(row.tally.seconds for row in rows):.3f}",
    }


def _case(suite: ET.Element, row: Row) -> None:
    name, took = _text(row.tally.case.input, 200), f"{row.tally.seconds:.3f}"
    test = ET.SubElement(suite, "testcase", classname=row.agent, name=name, time=took)
    rate = row.tally.rate
    told = f"{rate.passed} of {rate.runs} passed"
    if row.baseline is not None:
        told += f"; baseline {row.baseline.passed} of {row.baseline.runs}"
    if row.verdict == "skipped":
        ET.SubElement(test, "skipped", message="needs a real model")
    elif row.verdict in FAULTS:
        failure = ET.SubElement(test, "failure", message=f"{row.verdict}: {told}")
        lines = [line for one in row.tally.failures()[:3] for line in (*one.missing, f"answer: {one.output}")]
        failure.text = _text("\n".join(lines), MAX_TEXT)
    else:
        ET.SubElement(test, "system-out").text = told


def _text(text: str, most: int) -> str:
    return _FORBIDDEN.sub("\ufffd", text)[:most]
