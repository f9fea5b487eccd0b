"""Costs worked out by hand from the published tariffs, in nano-dollars: USD 1 per million tokens is 1,000 a token."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.base import Settings
from service.errors import PriceUnknown
from service.types import Usage, usd
from service.usage.prices import Price, PriceTable

TODAY = date(2026, 11, 21)
TABLE = PriceTable.load()
HAIKU, SONNET, OPUS = (TABLE.price(f"claude-{name}-5-5", TODAY) for name in ("haiku", "sonnet", "opus"))

ROW = """
prices:
  - model: m
    from: 2026-01-01
    tariffs:
      - {above_tokens: 0, input: "1", output: "5", cache_write_5m: "1.25", cache_write_1h: "2", cache_read: "0.10"}
    batch_discount: 50
    server_tool_use: "0.01"
    source: somewhere
"""


@pytest.mark.parametrize(
    ("price", "usage", "batch", "nano"),
    [
        # 1,000 in at 100, 500 out at 500
        (HAIKU, Usage(1_000, 500), False, 350_000),
        # 100,000 in is still the lower tariff; one more is the higher one, for output too
        (HAIKU, Usage(100_000, 100), False, 10_050_000),
        (HAIKU, Usage(100_001, 100), False, 50_250_500),
        # the size of a prompt counts what was cached: 60,000 x 500 + 40,000 x 50 read + 1 x 625 written
        (HAIKU, Usage(60_000, 0, 40_000, 1), False, 32_000_625),
        # 3 in at 100, 1 written for 5 minutes at 125, 1 for an hour at 200, 1 read at 10
        (HAIKU, Usage(3, 0, 1, 2, 1), False, 635),
        # half of 3 x 125 = 375 is 187.5, rounded up once: not 3 x 63
        (HAIKU, Usage(0, 0, 0, 3), True, 188),
        (HAIKU, Usage(1_000, 500), True, 175_000),
        # Sonnet 2,000 in at 2,000; 300 out at 10,000; 50,000 read at 100; 1,000 written at 2,500
        (SONNET, Usage(2_000, 300, 50_000, 1_000), False, 14_500_000),
        # Opus 10 in at 4,000; 10 out at 20,000; 100 for an hour at 8,000; 100 read at 200
        (OPUS, Usage(10, 10, 100, 100, 100), False, 1_060_000),
        # two web searches at a cent each, which a batch does not make cheaper; 100 in at 2,000, halved
        (SONNET, Usage(100, 0, server_tool_requests=2), False, 20_200_000),
        (SONNET, Usage(100, 0, server_tool_requests=2), True, 20_100_000),
        (HAIKU, Usage(), False, 0),
    ],
)
def test_costs_worked_out_by_hand(price: Price, usage: Usage, batch: bool, nano: int) -> None:
    assert (price.in_batch() if batch else price).cost(usage) == nano


@pytest.mark.parametrize(
    ("price", "tokens", "nano"),
    [
        # all of it written for an hour: 1,000 x 200 + 200 x 500
        (HAIKU, (1_000, 200), 300_000),
        (HAIKU.in_batch(), (1_000, 200), 150_000),
        # 100,001 x 1,000 + 200 x 2,500
        (HAIKU, (100_001, 200), 100_501_000),
    ],
)
def test_worst_cases_worked_out_by_hand(price: Price, tokens: tuple[int, int], nano: int) -> None:
    assert price.worst(*tokens) == nano


def test_cost_of_an_invoke_in_dollars() -> None:
    assert usd(HAIKU.cost(Usage(412, 96))) == "0.000090"  # 41,200 + 48,000 = 89,200 nano, rounded up


@given(
    model=st.sampled_from(TABLE.models),
    prompt=st.tuples(*[st.integers(0, 150_000)] * 4),
    output=st.integers(0, 128_000),
    spare=st.integers(0, 1_000),
    batch=st.booleans(),
)
def test_nothing_costs_more_than_the_worst(
    model: str, prompt: tuple[int, int, int, int], output: int, spare: int, batch: bool
) -> None:
    plain, read, written, hour = prompt
    usage = Usage(plain, output, read, written + hour, hour)
    price = TABLE.price(model, TODAY)
    price = price.in_batch() if batch else price
    assert 0 <= price.cost(usage) <= price.worst(sum(prompt) + spare, output + spare)


@pytest.mark.parametrize(
    "model", ["offline-claude-haiku-5-5", "claude-haiku-5-5-20261007", "offline-claude-haiku-5-5-20261007"]
)
def test_other_names_of_a_model(model: str) -> None:
    assert TABLE.price(model, TODAY) is HAIKU


@pytest.mark.parametrize(
    "model", ["claude-haiku-9", "offline-", "", "claude-haiku", "gpt", "claude-haiku-5-5-latest"]
)
def test_an_unknown_model_has_no_price(model: str) -> None:
    with pytest.raises(PriceUnknown):
        TABLE.price(model, TODAY)


def test_prices_change_on_their_day() -> None:
    read = Usage(cache_read_input_tokens=1_000)
    assert TABLE.price("claude-sonnet-5-5", date(2026, 10, 6)).cost(read) == 200_000
    assert TABLE.price("claude-sonnet-5-5", date(2026, 10, 7)).cost(read) == 100_000
    with pytest.raises(PriceUnknown):
        TABLE.price("claude-sonnet-5-5", date(2026, 9, 27))
    assert TABLE.price("claude-sonnet-5-5", TODAY).id == "claude-sonnet-5-5@2026-10-07"


def test_every_default_model_has_a_price() -> None:
    for tier in ("simple", "medium", "complex"):
        assert TABLE.price(Settings.model_fields[f"model_{tier}"].default, TODAY).source


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('input: "1"', "input: 1.0"),
        ('input: "1"', 'input: "-1"'),
        ('input: "1"', 'input: "0.0000001"'),
        ('input: "1"', 'input: "one"'),
        ('input: "1", ', ""),
        ("above_tokens: 0", "above_tokens: 5"),
        ("from: 2026-01-01", "from: soon"),
        ("batch_discount: 50", "batch_discount: 150"),
        ("source: somewhere", "source:"),
        ('input: "1"', 'input: "١"'),
        ('input: "1"', 'input: "１"'),
        ("above_tokens: 0", 'above_tokens: "٠"'),
        ("batch_discount: 50", 'batch_discount: "５０"'),
    ],
)
def test_a_row_that_does_not_fit_names_its_model(tmp_path: Path, good: str, bad: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(ROW)
    assert PriceTable.load(path).price("m", TODAY).cost(Usage(1)) == 1_000
    path.write_text(ROW.replace(good, bad))
    with pytest.raises(ValueError, match="the row of m does not fit"):
        PriceTable.load(path)


def test_a_byte_order_mark_is_no_part_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(ROW.lstrip(), "utf-8-sig")
    assert PriceTable.load(path).models == ["m"]


@pytest.mark.parametrize("dated", ["m-20٢٦١٠٠٧", "m-20261007\n", "m-20２６1007"])
def test_a_date_in_other_digits_is_part_of_the_name(tmp_path: Path, dated: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(ROW)
    assert PriceTable.load(path).price("m-20261007", TODAY).model == "m"
    with pytest.raises(PriceUnknown):
        PriceTable.load(path).price(dated, TODAY)
