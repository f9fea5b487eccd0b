"""Which cases and servers a run of the benchmark has."""

from __future__ import annotations

import sys

import pytest

from benchmarks.__main__ import CASES, arguments, selected
from benchmarks.processes import ROOT


def given(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[list[str], list[str]]:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    asked = arguments()
    return selected(asked.only), asked.peers


def test_first_letters_select_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch)[0] == list(CASES)
    assert given(monkeypatch, "--only", "D,PD")[0] == ["PD", "D"]
    parts = given(monkeypatch, "--only", "P")[0]
    assert {"PA", "PB", "PC", "PD"} < {*parts} and all(part.startswith("P") for part in parts)


def test_a_server_may_be_another_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = ["slipway", f"slipway@{ROOT}"]
    assert given(monkeypatch, "--peers", ",".join(peers))[1] == peers


@pytest.mark.parametrize(
    "words",
    [("--only", "PX"), ("--peers", "flask"), ("--peers", "slipway@/nowhere"), ("--peers", f"agno@{ROOT}")],
)
def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        given(monkeypatch, *words)
