"""Values of a model call's money: the estimate before it, the hold for it, the settlement after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType
from typing import NamedTuple

from service.errors import ModelError
from service.ids import new_id
from service.store.holds import Hold
from service.store.transaction import WriteInTransaction
from service.types import Run, Usage, UsageSource
from service.usage.bounds import counted_bound
from service.usage.prices import Price, Tariff

FEWEST_TOKENS = 64  # a shorter answer is useless
_NO_PRICE = Price("", date.min, (Tariff(0, 0, 0, 0, 0, 0),), 0, 0, "")  # of a tree, whose calls have theirs


@dataclass(frozen=True, slots=True)
class CallEstimate:
    """Most that a model call can cost, estimated before it is made.

    `input_tokens` is a safe bound, None if it takes counting; `count` asks the provider for the prompt's tokens, which
    is free, and is None afterwards. `max_tokens` may be reduced to `fewest`. `most` is the run's remaining budget, in
    nano-dollars. `tree`: the hold that this one is taken from, instead of the caps. `waits`: its run waits for a cap to
    have room, rather than for a shorter answer.
    """

    run: Run
    step: int
    price: Price
    model: str
    max_tokens: int
    fewest: int
    input_tokens: int | None
    count: Callable[[], int] | None
    most: int | None = None
    tree: Hold | None = None
    waits: bool = False

    def counted(self) -> CallEstimate:
        """Return the estimate with the provider's count of the prompt, if that is the closer bound.

        Raises `ModelError` if counting fails and there is no other bound.
        """
        assert self.count is not None
        try:
            bound = counted_bound(self.count())
        except ModelError:
            if self.input_tokens is None:
                raise
            return replace(self, count=None)
        return replace(self, input_tokens=min(bound, self.input_tokens or bound), count=None)

    def worst(self, tokens: int) -> int:
        """Return the most the call can cost with an answer of so many tokens, in nano-dollars."""
        return self.price.worst(self.input_tokens or 0, tokens)

    def affordable(self, room: int) -> int:
        """Return the longest answer that fits into `room` nano-dollars, in tokens; -1: none does."""
        low, high = 0, self.max_tokens
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.worst(middle) <= room else (low, middle - 1)
        return low if self.worst(low) <= room else -1

    def hold(self, tokens: int, at: int) -> Hold:
        """Make the hold, at a time in ms, for an answer of so many tokens."""
        run, tree = self.run, self.tree
        return Hold(
            id=new_id("hld"),
            run_id=run.id,
            attempt=run.attempt,
            step=self.step,
            workspace_id=run.workspace_id,
            user_id=run.user_id,
            key_id=run.key_id,
            agent=run.agent,
            session_id=run.request.session_id,
            model=self.model,
            price_id=self.price.id,
            amount_nano=self.worst(tokens),
            # A call counts where its hold does: a tree's windows are those of its beginning.
            called_at=at if tree is None else tree.called_at,
            counters=() if tree is None else tree.counters,
            end_user=run.request.end_user,
            tree_id=None if tree is None else tree.id,
        )


@dataclass(frozen=True, slots=True)
class TreeEstimate(CallEstimate):
    """Most that a tree of sub-agents may cost: `amount` nano-dollars, held whole or not at all."""

    amount: int = 0

    @classmethod
    def of(cls, run: Run, step: int, amount: int, most: int | None) -> TreeEstimate:
        return cls(run, step, _NO_PRICE, "", 1, 1, 0, None, most, amount=amount)

    def worst(self, tokens: int) -> int:
        return self.amount

    def hold(self, tokens: int, at: int) -> Hold:
        hold = CallEstimate.hold(self, tokens, at)
        return hold._replace(price_id="", tree_id=hold.id)


class HoldAttempt(NamedTuple):
    """One reservation attempt: answer length in tokens and, by window, chosen counter stripes."""

    estimate: CallEstimate
    tokens: int
    counters: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True)
class Placed:
    """Hold to be written, with the counters it is written against; `chosen`: by window, instead of the usual ones."""

    hold: Hold
    chosen: Mapping[str, str]


class Reserved(NamedTuple):
    """Hold that was written, and the longest answer it covers, in tokens."""

    hold: Hold
    max_tokens: int


class Settlement(NamedTuple):
    """Cost of a call, in nano-dollars, and the idempotent write that books it."""

    usage: Usage
    cost: int
    source: UsageSource
    work: WriteInTransaction
