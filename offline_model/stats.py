"""Statistics for tests: calls, outcomes and usage."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass, field

from offline_model.shapes import Json

KINDS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
MAX_CALLS = 200


@dataclass
class Call:
    """POST /v1/messages call, or batch item, from start to outcome. Times are epoch seconds."""

    model: str
    stream: bool
    user_id: str | None
    batch: bool = False
    started: float = field(default_factory=time.time)
    finished: float | None = None
    outcome: str | None = None
    usage: Json | None = None

    def public(self) -> Json:
        return dict(vars(self))


class Stats:
    """Counters since the start or the last reset."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Reset all counters, except for running calls."""
        self.totals: dict[str, int] = defaultdict(int)
        self.models: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(("calls", *KINDS), 0))
        self.outcomes: dict[str, int] = defaultdict(int)
        self.calls: deque[Call] = deque(maxlen=MAX_CALLS)
        self.peak = self.in_flight

    def begin(self, model: str, stream: bool, user_id: str | None, batch: bool = False) -> Call:
        """Record a new call."""
        call = Call(model, stream, user_id, batch)
        self.calls.append(call)
        self.totals["batch_calls" if batch else "calls"] += 1
        self.models[model]["calls"] += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        return call

    def end(self, call: Call, outcome: str) -> None:
        """Record a call's outcome, and add its usage, if any."""
        call.finished = time.time()
        call.outcome = outcome
        self.in_flight -= 1
        self.outcomes[outcome] += 1
        for kind in KINDS if call.usage else ():
            amount = int((call.usage or {})[kind])
            self.totals[kind] += amount
            self.models[call.model][kind] += amount

    def public(self) -> Json:
        """Return the body of GET /stats."""
        counters = ("calls", "batch_calls", "count_tokens", *KINDS)
        return {
            **{name: self.totals[name] for name in counters},
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak,
            "closed_early": self.outcomes.get("closed_early", 0),
            "outcomes": dict(self.outcomes),
            "models": self.models,
            "last_calls": [call.public() for call in self.calls],
        }
