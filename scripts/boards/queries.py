"""Panels of Grafana boards, and the queries they are made of.

Values that are read from the database are the same at every replica: `max`. What processes count is summed.
"""

from __future__ import annotations

from typing import NamedTuple

RATE = "[$__rate_interval]"
REAL = 'route!~"/health|/ready|/metrics"'


class Panel(NamedTuple):
    """Panel of one unit of Grafana's; `queries`: by legend. `kind`: `timeseries`, or `stat` for one number."""

    title: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    about: str = ""


class Board(NamedTuple):
    """Board; `rows`: panels by the title of their row."""

    name: str
    title: str
    rows: dict[str, tuple[Panel, ...]]


def quantile(share: float, metric: str, *by: str, where: str = "") -> str:
    """Return the query of a quantile of a histogram."""
    labels = ", ".join(("le", *by))
    return f"histogram_quantile({share}, sum by ({labels}) (rate(slipway_{metric}_bucket{where}{RATE})))"


def rate(metric: str, *by: str, where: str = "") -> str:
    """Return the query of a counter's sum per second."""
    return f"sum by ({', '.join(by)}) (rate(slipway_{metric}{where}{RATE}))"


def mean(metric: str, *by: str) -> str:
    """Return the query of a histogram's mean."""
    return f"{rate(f'{metric}_sum', *by)} / {rate(f'{metric}_count', *by)}"


def share(metric: str, where: str, whole: str, *by: str) -> str:
    """Return the query of a part of a counter by its whole; 0 while the part was never counted."""
    of = rate(metric, *by, where=whole)
    return f"({rate(metric, *by, where=where)} or 0 * {of}) / {of}"


def stored(metric: str, *by: str) -> str:
    """Return the query of a value that each replica reads from the database."""
    return f"max by ({', '.join(by)}) (slipway_{metric})" if by else f"max(slipway_{metric})"


FAILED, ENDED = '{status="failed"}', '{status=~"succeeded|failed"}'
