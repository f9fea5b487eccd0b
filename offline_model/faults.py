"""Fault injection: latency and faults, set by header, by marker in the question, by POST /control or at start.

Precedence, value by value: header, marker, control, settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from offline_model.settings import Settings
from offline_model.shapes import ApiError, Json, invalid

STATUS_FAULTS = {
    "400": "the request was refused because a fault was asked for",
    "401": "invalid x-api-key",
    "429": "This request would exceed your organization's rate limit",
    "500": "Internal server error",
    "503": "Service unavailable",
    "529": "Overloaded",
}
OTHER_FAULTS = ("drop", "drop_first", "slow", "hang", "garbage", "error_event", "no_stop")
FAULTS = (*STATUS_FAULTS, *OTHER_FAULTS)
NO_FAULT = "none"  # overrides a fault of lower precedence
SLOW_MS = 5_000.0
HANG_SECONDS = 600.0
MAX_COUNTED = 10_000  # requests whose marker `times` is counted

MARKER = re.compile(r"\[offline((?:\s+[a-z_]+=[^\s\]]+)+)\s*\]\s*")
_PAIR = re.compile(r"([a-z_]+)=([^\s\]]+)")


@dataclass(frozen=True)
class Knobs:
    """Fault settings; None: not set at this level. `model` restricts the others to calls of that model."""

    first_token_ms: float | None = None
    token_ms: float | None = None
    fault: str | None = None
    tokens: int | None = None
    retry_after: float | None = None
    times: int | None = None
    model: str | None = None

    def merged_over(self, under: Knobs) -> Knobs:
        """Return these values, with those of `under` where None."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(under, **given) if given else under

    def applies_to(self, model: str) -> bool:
        return self.model is None or self.model == model

    def public(self) -> Json:
        return {f.name: getattr(self, f.name) for f in fields(self)}


NOTHING = Knobs()
_KINDS: dict[str, type] = {
    "first_token_ms": float, "token_ms": float, "fault": str, "tokens": int, "retry_after": float,
    "times": int, "model": str,
}  # fmt: skip


def read(given: Mapping[str, Any]) -> Knobs:
    """Parse fault settings from text or JSON values. Raises 400 on an unknown name or an invalid value."""
    values: Json = {}
    for name, value in given.items():
        kind = _KINDS.get(name)
        if kind is None:
            raise invalid(f"offline model: there is no knob '{name}', only {', '.join(_KINDS)}")
        if value is None:
            continue
        try:
            values[name] = kind(value)
        except (TypeError, ValueError):
            raise invalid(f"offline model: {name}={value!r} is not a {kind.__name__}") from None
        if kind is not str and not 0 <= values[name] < 1e9:
            raise invalid(f"offline model: {name}={value!r} is out of range")
    fault = values.get("fault")
    if fault not in (None, NO_FAULT):
        check_name(fault)
    return Knobs(**values)


def check_name(fault: str) -> None:
    """Check a fault's name. Raises 400: a typo must not let a test pass."""
    if fault not in FAULTS:
        raise invalid(f"offline model: there is no fault '{fault}', only {', '.join(FAULTS)}")


def from_headers(headers: Mapping[str, str]) -> Knobs:
    """Parse x-offline-first-token-ms and the other x-offline-* headers."""
    given = {n[10:].replace("-", "_"): v for n, v in headers.items() if n.startswith("x-offline-")}
    return read(given) if given else NOTHING


def from_text(text: str) -> Knobs:
    """Parse the first marker in a text, such as `[offline fault=529 times=2]`."""
    marker = MARKER.search(text) if "[offline" in text else None
    return read(dict(_PAIR.findall(marker[1]))) if marker else NOTHING


def strip_markers(text: str) -> str:
    """Remove fault markers from a text."""
    return MARKER.sub("", text).strip() if "[offline" in text else text


class Control:
    """Fault settings of the running program, and the count of each marker's uses."""

    def __init__(self, settings: Settings) -> None:
        self._base = Knobs(settings.first_token_ms, settings.token_ms, settings.fault)
        self._set = NOTHING
        self._obeyed: dict[str, int] = {}

    def set(self, given: Mapping[str, Any]) -> None:
        """Replace the settings of an earlier POST /control; an empty object clears them."""
        self._set = read(given)

    def public(self) -> Json:
        """Return the current settings, merged over those of the start; `times` counts down."""
        return {"set": self._set.public(), "started_with": self._base.public()}

    def resolve(self, headers: Mapping[str, str], text: str, model: str, seed: str) -> Knobs:
        """Merge the settings for one call. `seed` identifies the request, for which a marker's `times` counts."""
        knobs = self._take_control(model).merged_over(self._base)
        marker = from_text(text)
        if marker is not NOTHING and marker.applies_to(model) and self._count_down(marker, seed):
            knobs = marker.merged_over(knobs)
        header = from_headers(headers)
        knobs = header.merged_over(knobs) if header.applies_to(model) else knobs
        return replace(knobs, fault=None) if knobs.fault == NO_FAULT else knobs

    def _take_control(self, model: str) -> Knobs:
        now = self._set
        if not now.applies_to(model):
            return NOTHING
        if now.times is not None:
            self._set = replace(now, times=now.times - 1) if now.times > 1 else NOTHING
        return now if now.times != 0 else NOTHING

    def _count_down(self, marker: Knobs, seed: str) -> bool:
        if marker.times is None:
            return True
        obeyed = self._obeyed.pop(seed, 0)
        self._obeyed[seed] = obeyed + 1
        if len(self._obeyed) > MAX_COUNTED:
            del self._obeyed[next(iter(self._obeyed))]
        return obeyed < marker.times


def refusal(knobs: Knobs, stream: bool) -> ApiError | None:
    """Return the error for a fault, if the fault is one."""
    fault = "529" if knobs.fault == "error_event" and not stream else knobs.fault
    if fault not in STATUS_FAULTS:
        return None
    wait = knobs.retry_after if knobs.retry_after is not None else (1 if fault == "429" else None)
    headers = {} if wait is None else {"retry-after": f"{wait:g}"}
    return ApiError(int(fault), STATUS_FAULTS[fault], headers)
