"""Usage reports: CSV that a spreadsheet may open."""

from __future__ import annotations

import csv
import io

import pytest

from service.usage.reports import FIGURES, as_csv


@pytest.mark.parametrize(
    "name",
    [
        "=1+1",
        "+A1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        '=HYPERLINK("x")',
        "\uff1d1",
        "\uff20SUM(A1)",
    ],
)
def test_text_that_begins_like_a_formula_is_quoted(name: str) -> None:
    figures = dict.fromkeys(FIGURES, "-1.5")
    _, line = csv.reader(io.StringIO(as_csv([{"end_user": name, **figures}], ["end_user"]), newline=""))
    assert line == [f"'{name}", *figures.values()]


@pytest.mark.parametrize("name", ["ada", "a=b", "-5", ""])
def test_other_text_stays(name: str) -> None:
    [_, line] = csv.reader(io.StringIO(as_csv([{"end_user": name}], ["end_user"])))
    assert line == [name]
