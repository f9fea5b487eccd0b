"""Print docs/metrics.md from the table of metrics: `python -m scripts.metrics_page`."""

from __future__ import annotations

import sys

from service.observe.metric_kinds import (
    MAX_GAUGE_LABEL_SETS,
    MAX_HISTOGRAM_LABEL_SETS,
    MAX_LABEL_SETS,
    MAX_REQUEST_LABEL_SETS,
    MAX_ROUTES,
    Metric,
)
from service.observe.metric_table import SECTIONS
from service.observe.stored_values import KEEP_SECONDS, WAIT_SECONDS

HEAD = rf"""# Metrics

Generated from `service/observe/metric_table.py` by `make docs`; `make check` compares them.

`GET /metrics` of a replica is about all of its processes, in Prometheus' text format; with `METRICS_ENABLED=false` it
is 404 and nothing is counted. nginx does not pass it on: scrape each replica itself, at its own port. A task worker on
a machine of its own serves its counts too, see [running](running.md#metrics). Counters only grow, over workers that
are restarted or killed; only the restart of a whole replica begins them at 0, which `rate()` and `increase()` know.

| over replicas | of |
| --- | --- |
| `sum` | counters, histograms, gauges marked *sum* |
| `max` | gauges marked *max*, and those marked *database*: each replica reads the same value of the whole service |
| `min` | gauges marked *min* |

Values marked *database* are read when `/metrics` is, by the process that answers: at most once in {KEEP_SECONDS:g} s,
within {WAIT_SECONDS:g} s. While the database is away they are **absent**, not 0, and `slipway_database_up` is 0.

Labels are bounded: routes, agents, models and codes, never a user. A process has at most {MAX_LABEL_SETS} sets of
labels of a counter (`slipway_http_requests_total`: {MAX_REQUEST_LABEL_SETS:,}), {MAX_GAUGE_LABEL_SETS} of a gauge and
{MAX_HISTOGRAM_LABEL_SETS} of a histogram (by `route`: {MAX_ROUTES}); further ones count as `(other)`.

## Ratios

| share | of these | in these |
| --- | --- | --- |
| completion | `slipway_runs_total{{status="succeeded"}}` | `slipway_runs_total{{status!="cancelled"}}` |
| escalation | `slipway_escalations_total` | `slipway_runs_total` |
| tool success | `slipway_tool_calls_total{{ok="true"}}` | `slipway_tool_calls_total` |
| answers from the cache | `slipway_cache_total{{result!~"miss\|bypass"}}` | `slipway_cache_total` |

Each as `sum(increase(…[1h])) / sum(increase(…[1h]))`. A run **completes** when it succeeds; what its caller cancels
counts neither way. It **escalates** when it asks a person to decide, with its first [approval](client.md#decide):
further ones of the same run are not counted.
"""
MERGES = {
    "livesum": "sum",
    "livemax": "max",
    "livemin": "min",
    "livemostrecent": "max",
    "database": "database",
    "host": "of the machine",
}


def page() -> str:
    """Return the page: a table for each section."""
    parts = [HEAD]
    for title, metrics in SECTIONS.items():
        parts.append(f"\n## {title}\n\n| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n")
        parts += [_row(metric) for metric in metrics]
    return "".join(parts)


def _row(metric: Metric) -> str:
    kind = metric.kind if metric.kind != "gauge" else f"gauge, *{MERGES[metric.merge]}*"
    labels = f"{', '.join(f'`{label}`' for label in metric.labels)} " if metric.labels else ""
    meaning = f"{metric.about}: {metric.notes}" if metric.notes else metric.about
    return f"| `{metric.exposed}` | {kind} | {labels}| {meaning} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
