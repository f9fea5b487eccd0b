"""Exact price of a model call: integer token counts in, nano-dollars out, rounded up once at the end."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, Strict, TypeAdapter, ValidationError

from service.errors import PriceUnknown
from service.text import numerals
from service.types import Usage, usd

BUNDLED = Path(__file__).with_name("prices.yaml")

# Rates are in pico-dollars per token, which is USD per million tokens times a million. So every published rate is an
# integer, as is half of it times any number of tokens, if the division comes last.
PICO_IN_NANO = 1_000
OFFLINE = "offline-"
BATCH = "/batch"
ANTHROPIC, OPENAI = "anthropic", "openai"  # providers: dialects of models
EMBEDDINGS = "embeddings"  # provider of embedding models, which no run asks
DATED = re.compile(r"-20[0-9]{6}\Z")  # claude-haiku-4-5-20251001 is claude-haiku-4-5


def today() -> date:
    """Return the day whose prices apply, in UTC."""
    return datetime.now(UTC).date()


def plain_name(model: str) -> str:
    """Return the name of a model without a date, and without the prefix of the offline model."""
    return DATED.sub("", model.removeprefix(OFFLINE))


def _pico(text: object) -> int:
    """Convert `"0.125"` dollars per million tokens to pico-dollars per token.

    Raises `ValueError` for floats, fractions of a pico-dollar and negative rates.
    """
    if not isinstance(text, str):
        raise ValueError("must be a decimal string in quotes: money is never a float")
    pico = numerals.amount(text) * 1_000_000
    if pico != pico.to_integral_value() or pico < 0:
        raise ValueError("is negative or finer than a millionth")
    return int(pico)


def _in_order(tariffs: tuple[Tariff, ...]) -> tuple[Tariff, ...]:
    ordered = tuple(sorted(tariffs))
    if not ordered or ordered[0].above_tokens != 0:
        raise ValueError("one must be for prompts above_tokens 0")
    return ordered


Count = Annotated[int, Strict()]
Pico = Annotated[int, BeforeValidator(_pico)]


class Tariff(NamedTuple):
    """Pico-dollars per token, for prompts of more than `above_tokens` tokens of every kind."""

    above_tokens: Count
    input: Pico
    output: Pico
    cache_write_5m: Pico
    cache_write_1h: Pico
    cache_read: Pico

    def tokens(self, usage: Usage) -> int:
        """Return the cost of all tokens, in pico-dollars."""
        hour = usage.cache_creation_1h_input_tokens
        return (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + (usage.cache_creation_input_tokens - hour) * self.cache_write_5m
            + hour * self.cache_write_1h
            + usage.cache_read_input_tokens * self.cache_read
        )

    @property
    def dearest_input(self) -> int:
        return max(self.input, self.cache_write_5m, self.cache_write_1h, self.cache_read)


class Price(NamedTuple):
    """Price of a model from a day on: one row of the table."""

    model: str
    since: Annotated[date, Strict(), Field(alias="from")]
    tariffs: Annotated[
        tuple[Tariff, ...], AfterValidator(_in_order)
    ]  # by above_tokens, which is 0 in the first
    batch_discount: Annotated[Count, Field(ge=0, le=100)]  # percent off every token in a batch
    # Pico-dollars each, given in dollars each and not in dollars per million; no discount in a batch.
    server_tool_use: Annotated[Pico, AfterValidator(lambda pico: pico * 1_000_000)]
    source: Annotated[str, Field(min_length=1)]
    takes_files: Annotated[bool, Strict()] = True  # whether the model reads images and PDFs
    batched: bool = False  # at the Batches API's discount
    provider: Literal["anthropic", "openai", "embeddings"] = "anthropic"  # of what dialect
    max_output_tokens: Annotated[Count, Field(ge=1)] | None = None  # most of an answer
    context_tokens: Annotated[Count, Field(ge=1)] | None = None  # most of a prompt

    @property
    def id(self) -> str:
        """Id of the row in the ledger: `claude-haiku-5-5@2026-10-07`, and `…/batch` at the discount."""
        return f"{self.model}@{self.since.isoformat()}{BATCH if self.batched else ''}"

    def in_batch(self) -> Price:
        return self._replace(batched=True)

    def cost(self, usage: Usage) -> int:
        """Return the cost of the usage in nano-dollars.

        The size of the whole prompt, cached or not, selects the tariff.
        """
        prompt = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens
        return self._nano(self._within(prompt)[-1].tokens(usage), usage.server_tool_requests)

    def worst(self, input_tokens: int, max_tokens: int) -> int:
        """Return the most a call with so many tokens can cost, in nano-dollars, however its prompt is cached."""
        within = self._within(input_tokens)
        pico = input_tokens * max(tariff.dearest_input for tariff in within)
        pico += max_tokens * max(tariff.output for tariff in within)
        return self._nano(pico, 0)

    def _within(self, prompt: int) -> list[Tariff]:
        """Tariffs of a prompt of up to so many tokens, the one of exactly so many last."""
        return [one for one in self.tariffs if not one.above_tokens or prompt > one.above_tokens]

    def _nano(self, pico: int, tool_requests: int) -> int:
        percent = 100 - self.batch_discount if self.batched else 100
        hundredths = pico * percent + tool_requests * self.server_tool_use * 100
        return -(-hundredths // (100 * PICO_IN_NANO))


class PriceTable:
    """Prices by model and day. `providers`: those that are set up, whose models can be asked.

    `checked`: the day on which they were last compared with the providers' pages.
    """

    def __init__(
        self,
        prices: list[Price],
        providers: Collection[str] = (ANTHROPIC,),
        checked: date | None = None,
    ) -> None:
        self.checked = checked
        self._providers = frozenset(providers)
        self._rows: dict[str, list[Price]] = {}
        for price in sorted(prices, key=lambda price: price.since, reverse=True):
            self._rows.setdefault(price.model, []).append(price)

    @classmethod
    def load(
        cls, path: Path = BUNDLED, more: Path | None = None, providers: Collection[str] = (ANTHROPIC,)
    ) -> PriceTable:
        """Load the table from YAML, with `more` rows. Raises `ValueError` naming the model of an invalid row."""
        tables = [_table(file) for file in (path, more) if file is not None]
        prices = [_price(row) for table in tables for row in table["prices"]]
        twice = {price.id for price in prices if [one.id for one in prices].count(price.id) > 1}
        if twice:
            raise ValueError(f"prices: two rows for {', '.join(sorted(twice))}: a new price has a later day")
        days = [table["checked"] for table in tables if type(table.get("checked")) is date]
        return cls(prices, providers, max(days, default=None))

    @property
    def models(self) -> list[str]:
        """Names of the models that runs ask."""
        return sorted(name for name, rows in self._rows.items() if rows[0].provider != EMBEDDINGS)

    def provider(self, model: str) -> str | None:
        """Return the provider of a model that can be asked today; None: it has no price, or it is not set up."""
        with suppress(PriceUnknown):
            provider = self.price(model, today()).provider
            return provider if provider in self._providers else None
        return None

    def lacks_upstream(self, model: str) -> bool:
        """Return whether the name is of a model of OpenAI's dialect, whose upstream is not set up."""
        if OPENAI in self._providers:
            return False
        rows = self._rows.get(DATED.sub("", model), ())
        return model.startswith("gpt-") or any(row.provider == OPENAI for row in rows)

    def price(self, model: str, on: date) -> Price:
        """Return the row of a model that runs ask, on a day; `offline-X` costs as much as X. Raises `PriceUnknown`."""
        return self._row(model, on, embeds=False)

    def embedding(self, model: str, on: date) -> Price:
        """Return the row of an embedding model on that day. Raises `PriceUnknown`."""
        return self._row(model, on, embeds=True)

    def _row(self, model: str, on: date, embeds: bool | None = None) -> Price:
        name = plain_name(model)
        for row in self._rows.get(name, ()):
            if row.since <= on and embeds in (None, row.provider == EMBEDDINGS):
                return row
        raise PriceUnknown(f"There is no price for {model} on {on.isoformat()}")

    def usd_today(self, model: str, usage: Usage) -> str | None:
        """Price usage at today's prices, in dollars; None for a model without a price."""
        with suppress(PriceUnknown):
            return usd(self._row(model, today()).cost(usage))
        return None

    def by_id(self, price_id: str) -> Price:
        """Return the row named by a hold or ledger entry. Raises `PriceUnknown`, or `ValueError` for a malformed id."""
        model, _, since = price_id.removesuffix(BATCH).rpartition("@")
        price = self._row(model, date.fromisoformat(since))
        return price.in_batch() if price_id.endswith(BATCH) else price


def _table(path: Path) -> dict[str, Any]:
    """Read a file: its rows in `prices`. Raises `ValueError`."""
    read = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    rows = read.get("prices") if isinstance(read, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"prices: {path.name} has no list named prices")
    return {**read, "prices": rows}


def _of_embeddings(row: dict[str, Any]) -> dict[str, Any]:
    """Complete the row of an embedding model: `input` is all that it costs."""
    input_only = dict.fromkeys(("output", "cache_write_5m", "cache_write_1h", "cache_read"), "0")
    tariffs = [{"above_tokens": 0, **input_only, "input": row.get("input")}]
    rest = {name: value for name, value in row.items() if name != "input"}
    return {"tariffs": tariffs, "batch_discount": 0, "server_tool_use": "0", **rest}


_ROW = TypeAdapter(Price)


def _price(row: dict[str, Any]) -> Price:
    if row.get("provider") == EMBEDDINGS:
        row = _of_embeddings(row)
    try:
        return _ROW.validate_python(row)
    except ValidationError as error:
        raise ValueError(
            f"prices: the row of {row.get('model', 'no model')} does not fit: {error}"
        ) from error
