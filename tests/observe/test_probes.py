"""Probes of `/ready`: shared checks in threads."""

from __future__ import annotations

import pytest

from service.observe.probes import MAX_THREADS, Probe
from tests.exhausted import no_threads


def test_thread_that_cannot_start_is_not_counted() -> None:
    probe = Probe(lambda: True, "down")
    with no_threads(MAX_THREADS) as times:
        for _ in times:
            with pytest.raises(RuntimeError):
                probe.begin()
    assert probe.state(probe.begin())["status"] == "ok"
