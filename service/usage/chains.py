"""Chains of ledger entries: each entry takes a counter from one state to the next, numbered without a gap.

A chain is verified in any order and without storing it. Every state has a fingerprint: fingerprints of states after an
entry are added, those of states before it subtracted, so an intact chain sums to its last state. One pass over the
ledger keeps only a sum per day, month and for `total`; `ChainWalk` locates the fault where a sum is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from service.store.budgets import MASK, CounterEntry
from service.store.closed_windows import weight
from service.store.database import Row
from service.usage.caps import DAY
from service.usage.counter_snapshot import CounterSnapshot, ended, span_of

BLOCK = 12  # bits: chains are verified in blocks of 4,096 links
CAP_KINDS = ("open", "cap", "share")
K = TypeVar("K")
EntryBlock = tuple[str, int]  # a counter, and a part of its chain


class Link(NamedTuple):
    """Effect of one entry on one counter."""

    after: CounterEntry
    kind: str
    row: str
    spent: int = 0
    held: int = 0

    def passes(self) -> bool:
        """Return whether the entry took the counter past its cap."""
        after = self.after
        return self.spent + self.held > 0 and after.spent + after.held > after.cap


class ChainReader(Protocol):
    """Consumer of every link (with the cap before it, if known) and of every distribution of a cap over stripes."""

    def link(self, link: Link, cap_before: int | None) -> None: ...
    def cap_entry(self, row: Row, faulty: bool) -> None: ...


class Sums(Generic[K]):
    """Sums of state fingerprints, grouped by `key(state)`; states with the key None are skipped."""

    def __init__(
        self, snapshot: CounterSnapshot, key: Callable[[CounterEntry], K | None], last_states: bool = False
    ) -> None:
        self.sums: dict[K, int] = defaultdict(int)
        self.bad: set[K] = set()  # keys with a link that is invalid in itself, whatever the sum
        self.windows: set[str] = set()  # windows whose cap distributions do not follow from each other
        self.later: dict[str, int] = {}  # by counter: number of its last entry after the snapshot
        self.last_states: dict[str, CounterEntry] = {}  # last states of counters that have no row
        self._snapshot = snapshot
        self._key = key
        self._collects_last = last_states

    def link(self, link: Link, cap_before: int | None) -> None:
        after, opens = link.after, link.kind == "open"
        key = self._key(after)
        if key is None:
            return
        if not self._snapshot.counts(after):
            self.later[after.counter] = max(after.seq, self.later.get(after.counter, 0))
            return
        if opens != (after.seq == 1) or link.passes():
            self.bad.add(key)
        self.add(after)
        if not opens:
            found = (after.seq - 1, after.spent - link.spent, after.held - link.held)
            self.add(CounterEntry(after.counter, *found, after.cap if cap_before is None else cap_before), -1)
        if self._collects_last and after.counter not in self._snapshot.last:
            latest = self.last_states.get(after.counter)
            self.last_states[after.counter] = after if latest is None else max(latest, after)

    def add(self, state: CounterEntry, times: int = 1) -> None:
        if (key := self._key(state)) is None:
            return
        self.sums[key] = (self.sums[key] + times * weight(1, state.spent, state.fingerprint)) & MASK

    def cap_entry(self, row: Row, faulty: bool) -> None:
        if faulty:
            self.windows.add(row["account"])

    def faulty(self) -> set[K]:
        """Return the keys with an invalid link or a sum that is not zero."""
        return self.bad | {key for key, rest in self.sums.items() if rest}


class CapHistory:
    """Latest distribution of each cap: `cap` and `share` entries do not contain the previous one."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, tuple[int, ...]]] = {}  # by window: its cap, and its stripes' shares
        self._forget_at = 0

    def follow(self, row: Row, states: Sequence[CounterEntry]) -> tuple[tuple[int, ...], bool]:
        """Return the previous shares, and whether this distribution is invalid or does not follow from them."""
        window, now = row["account"], row["called_at"]
        if now >= self._forget_at:
            self._last = {
                name: last for name, last in self._last.items() if not ended(span_of(name), now - DAY)
            }
            self._forget_at = now + DAY
        before = self._last.get(window)
        faulty = sum(state.cap for state in states) != row["cap_nano"]
        faulty = faulty or (row["kind"] == "share" and (before is None or before[0] != row["cap_nano"]))
        self._last[window] = row["cap_nano"], tuple(state.cap for state in states)
        return () if before is None else before[1], faulty


class ChainWalk:
    """Verification of faulty blocks link by link."""

    def __init__(self, snapshot: CounterSnapshot, blocks: set[EntryBlock], windows: set[str]) -> None:
        self._snapshot = snapshot
        self._blocks = blocks
        self._windows = windows
        self._links: dict[str, list[Link]] = {counter: [] for counter, _ in blocks}
        self._cap_entries: dict[str, list[tuple[int, Row]]] = {window: [] for window in windows}

    def link(self, link: Link, cap_before: int | None) -> None:
        counter, seq = link.after.counter, link.after.seq
        # The first link of a block follows the last one of the block before.
        selected = (counter, seq >> BLOCK) in self._blocks or (counter, (seq + 1) >> BLOCK) in self._blocks
        if selected and self._snapshot.counts(link.after):
            self._links[counter].append(link)

    def cap_entry(self, row: Row, faulty: bool) -> None:
        if row["account"] in self._windows:
            first = min((entry[1] for entry in row["counters"] or ()), default=0)
            self._cap_entries[row["account"]].append((first, row))

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield faulty rows, each with a description of the fault."""
        for counter in sorted(self._links):
            yield from self._chain(counter, sorted(self._links[counter]))
        for entries in self._cap_entries.values():
            yield from _shares([row for _, row in sorted(entries, key=lambda cap_entry: cap_entry[0])])

    def _chain(self, counter: str, links: Sequence[Link]) -> Iterator[tuple[str, str]]:
        before = CounterEntry(counter, 0, 0, 0, 0) if (counter, 0) in self._blocks else None
        for link in links:
            if before is not None and (counter, link.after.seq >> BLOCK) in self._blocks:
                for detail in _link_faults(before, link):
                    yield link.row, f"counter {counter}: {detail}"
            before = link.after
        now, rolled = self._snapshot.last.get(counter), self._snapshot.rolled(counter)
        if before is None or rolled or now == before:
            return
        latest = before if now is None else now
        if (counter, latest.seq >> BLOCK) in self._blocks:
            yield f"counters {counter}", f"it says {_described(now)}, its entries {_described(before)}"


def _shares(entries: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Yield distributions that do not add up to the cap, or that change the sum without changing the cap."""
    for before, row in zip((None, *entries), entries, strict=False):
        name = f"ledger {row['entry_id']} {row['kind']}"
        if sum(entry[4] for entry in row["counters"] or ()) != row["cap_nano"]:
            yield name, "the stripes' shares are not the cap"
        if row["kind"] == "share" and (before is None or before["cap_nano"] != row["cap_nano"]):
            yield name, "the cap changed where it was only dealt out anew"


def _link_faults(before: CounterEntry, link: Link) -> Iterator[str]:
    after, opening = link.after, link.kind == "open"
    if after.seq != before.seq + 1:
        yield f"entry {after.seq} follows entry {before.seq}"
    if opening != (before.seq == 0):
        yield "it is opened twice" if opening else "it was never opened"
    elif not opening and (after.spent, after.held) != (before.spent + link.spent, before.held + link.held):
        yield f"it was left at {_described(after)}, which does not follow from {_described(before)}"
    if link.kind not in CAP_KINDS and after.cap != before.cap:
        yield f"its cap became {after.cap} from {before.cap}"
    if link.passes():
        yield f"{after.spent} spent and {after.held} held pass the cap of {after.cap}"


def _described(entry: CounterEntry | None) -> str:
    if entry is None:
        return "nothing"
    return f"{entry.spent} spent, {entry.held} held of {entry.cap} (entry {entry.seq})"
