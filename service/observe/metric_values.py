"""Metrics of one process as the table describes them: with cached label sets, in files or in memory.

A process that has joined a folder (in `gunicorn.conf.py` or `worker.py`) counts in shared files there; any other counts
in memory, as on a full disk.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.observe.metric_files import take_slot
from service.observe.metric_kinds import PREFIX, READ_AT_SCRAPE, Metric
from service.observe.metric_table import ALL

log = logging.getLogger("slipway.metrics")
MAX_LABEL = 100  # characters
OTHER = "(other)"


class _Family:
    """Metric with a cache of its labelled children: `labels()` takes a lock and builds a tuple every time."""

    __slots__ = ("_children", "_metric", "_most")

    def __init__(self, metric: MetricWrapperBase, most: int) -> None:
        self._metric = metric
        self._most = most
        self._children: dict[tuple[str, ...], Any] = {}

    def __call__(self, *labels: str) -> Any:
        return self._children.get(labels) or self._child(labels)

    def _child(self, labels: tuple[str, ...]) -> Any:
        if len(self._children) >= self._most:
            return self._metric.labels(*(OTHER for _ in labels))
        child = self._metric.labels(*(label[:MAX_LABEL] for label in labels))
        return self._children.setdefault(labels, child)


def made(registry: CollectorRegistry) -> Mapping[str, Any]:
    """Make the metrics that processes count, by name: each a function of its labels, or a metric without any."""
    values.ValueClass = _value_class()
    return {
        name: _made(metric, registry) for name, metric in ALL.items() if metric.merge not in READ_AT_SCRAPE
    }


def _made(metric: Metric, registry: CollectorRegistry) -> Any:
    about: dict[str, Any] = {"labelnames": metric.labels, "registry": registry}
    name = f"{PREFIX}{metric.name}"
    found: MetricWrapperBase
    if metric.kind == "counter":
        found = Counter(name, metric.about, **about)
    elif metric.kind == "gauge":
        found = Gauge(name, metric.about, multiprocess_mode=cast(Any, metric.merge), **about)
    else:
        found = Histogram(name, metric.about, buckets=metric.buckets, **about)
    return _Family(found, metric.most) if metric.labels else found


class MergedFolders(Collector):
    """Collector of the metric files of several folders."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders

    def collect(self) -> Iterable[Any]:
        merge: Any = MultiProcessCollector.merge  # untyped
        while True:
            try:
                return list(merge([str(file) for path in self._folders for file in path.glob("*.db")]))
            except FileNotFoundError:  # a starting server has just cleared a folder
                continue


def of_folder(own: Path) -> CollectorRegistry:
    """Registry of one folder's metrics, for a metrics server of its own."""
    registry = CollectorRegistry()
    registry.register(MergedFolders(own))
    return registry


_value_classes: dict[tuple[int, str], Any] = {}  # by pid and folder: one slot for all metrics of a process


def _value_class() -> Any:
    """Return the class that stores metric values: in files shared by the processes of a machine, or in memory."""
    own = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not own:
        return values.MutexValue
    key = (os.getpid(), own)
    if key not in _value_classes:
        try:
            slot = take_slot(Path(own))
            _value_classes[key] = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        except OSError as error:
            log.error("metrics_not_shared", extra={"folder": own, "error": error.strerror})
            _value_classes[key] = values.MutexValue
    return _value_classes[key]
