"""Kinds of metrics: what the table of metrics says about each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

PREFIX = "slipway_"
# Label sets of a metric per process; further ones count as `(other)`. Bound, so that metric files never grow.
MAX_LABEL_SETS = 500
MAX_REQUEST_LABEL_SETS = 1000  # route, method and status
MAX_ROUTES = 200
MAX_HISTOGRAM_LABEL_SETS = 100  # each with an entry per bucket
MAX_GAUGE_LABEL_SETS = 200
# Upper bounds of a histogram's buckets, by what they measure: seconds, dollars or a share.
BUCKETS: Mapping[str, tuple[float, ...]] = {
    "request": (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    "late": (1, 2.5, 5, 10, 30, 60, 300, 3600, 86400),
    "model": (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160),
    "run": (0.05, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 300, 3600),
    "first": (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30),
    "cost": (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 5),
    "ratio": (0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1),
    "tool": (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    "decision": (10, 60, 300, 900, 3600, 14400, 86400, 604800),
}

Kind = Literal["counter", "gauge", "histogram"]
# Of a gauge: how the values of a replica's processes are merged; `database`, `host`: read when /metrics is.
Merge = Literal["livesum", "livemax", "livemin", "livemostrecent", "database", "host"]
READ_AT_SCRAPE = frozenset({"database", "host"})


class Metric(NamedTuple):
    """One metric. `name` is without prefix, and without `_total`."""

    name: str
    kind: Kind
    about: str  # help
    labels: tuple[str, ...] = ()
    notes: str = ""  # for the page
    merge: Merge = "livesum"
    buckets: tuple[float, ...] = ()
    most: int = MAX_LABEL_SETS

    @property
    def exposed(self) -> str:
        """Name as Prometheus scrapes it; a histogram's has `_bucket`, `_sum` and `_count` after it."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"


def counter(name: str, about: str, *labels: str, notes: str = "", most: int = MAX_LABEL_SETS) -> Metric:
    return Metric(name, "counter", about, labels, notes, most=most)


def gauge(name: str, about: str, *labels: str, merge: Merge, notes: str = "") -> Metric:
    return Metric(name, "gauge", about, labels, notes, merge, most=MAX_GAUGE_LABEL_SETS)


def histogram(
    name: str,
    about: str,
    *labels: str,
    buckets: str,
    notes: str = "",
    most: int = MAX_HISTOGRAM_LABEL_SETS,
) -> Metric:
    return Metric(name, "histogram", about, labels, notes, buckets=BUCKETS[buckets], most=most)
