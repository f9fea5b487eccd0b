"""Values that are read when /metrics is, such as those of the database: in a thread, with a time-out, for a while."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.observe.metric_table import ALL
from service.observe.probes import SECONDS as WAIT_SECONDS
from service.observe.probes import Probe

KEEP_SECONDS = 2.0  # for which values are kept: a page that is reloaded all the time reads them once
# Values by metric, each with the values of its labels.
Values = Mapping[str, Sequence[tuple[tuple[str, ...], float]]]

__all__ = ["KEEP_SECONDS", "WAIT_SECONDS", "StoredValues", "Values"]


def of_disk(path: Path) -> Values:
    """Read the room on the disk of a folder."""
    room = shutil.disk_usage(path)
    return {"disk_free_bytes": [((), room.free)], "disk_size_bytes": [((), room.total)]}


class StoredValues(Collector):
    """Collector of gauges that `read` returns. They are absent, not 0, while it raises or takes too long.

    `up`: metric that says so, if there is one. Read by one thread, whose result all callers share for `keep` seconds.
    """

    def __init__(self, read: Callable[[], Values], up: str | None = None, keep: float = KEEP_SECONDS) -> None:
        self._read = read
        self._up = up
        self._latest: Values = {}
        self._probe = Probe(self._refresh, "down", keep)

    def collect(self) -> Iterable[Any]:
        found = self.values()
        known: Values = {} if found is None else found
        if self._up is not None:
            known = {**known, self._up: [((), float(found is not None))]}
        for name, values in known.items():
            metric = ALL[name]
            family = GaugeMetricFamily(metric.exposed, metric.about, labels=metric.labels)
            for labels, value in values:
                family.add_metric(labels, value)
            yield family

    def values(self) -> Values | None:
        """Return the values, at most `KEEP_SECONDS` old; None: they cannot be read."""
        healthy = self._probe.state(self._probe.begin())["status"] == "ok"
        return self._latest if healthy else None

    def _refresh(self) -> None:
        self._latest = self._read()
