"""Latency and faults, told by header, by marker in the question, by POST /control or at start.

The nearest wins, value by value: header, then marker, then control, then settings.
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
NO_FAULT = "none"  # said to take back a fault that is asked for further away
SLOW_MS = 5_000.0
HANG_SECONDS = 600.0
MAX_COUNTED = 10_000  # requests whose marker `times` is remembered

MARKER = re.compile(r"\[offline((?:\s+[a-z_]+=[^\s\]]+)+)\s*\]\s*")
_PAIR = re.compile(r"([a-z_]+)=([^\s\]]+)")


@dataclass(frozen=True)
class Knobs:
    """What can be turned. None means not said here. `model` limits the rest to calls of that model."""

    first_token_ms: float | None = None
    token_ms: float | None = None
    fault: str | None = None
    tokens: int | None = None
    retry_after: float | None = None
    times: int | None = None
    model: str | None = None

    def over(self, under: Knobs) -> Knobs:
        """These values, and those of `under` where nothing is said here."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(under, **said) if said else under

    def applies_to(self, model: str) -> bool:
        return self.model is None or self.model == model

    def public(self) -> Json:
        return {f.name: getattr(self, f.name) for f in fields(self)}


NOTHING = Knobs()
_KINDS: dict[str, type] = {
    "first_token_ms": float, "token_ms": float, "fault": str, "tokens": int, "retry_after": float,
    "times": int, "model": str,
}  # fmt: skip


def read(said: Mapping[str, Any]) -> Knobs:
    """Knobs from words or JSON values. Raises 400 on an unknown name or an impossible value."""
    values: Json = {}
    for name, value in said.items():
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
    """Raises 400 for a fault that does not exist: a typo must not look like a test that passed."""
    if fault not in FAULTS:
        raise invalid(f"offline model: there is no fault '{fault}', only {', '.join(FAULTS)}")


def in_headers(headers: Mapping[str, str]) -> Knobs:
    """x-offline-first-token-ms and its siblings."""
    said = {n[10:].replace("-", "_"): v for n, v in headers.items() if n.startswith("x-offline-")}
    return read(said) if said else NOTHING


def in_text(text: str) -> Knobs:
    """The first marker in a text, such as `[offline fault=529 times=2]`."""
    marker = MARKER.search(text) if "[offline" in text else None
    return read(dict(_PAIR.findall(marker[1]))) if marker else NOTHING


def strip_markers(text: str) -> str:
    """The text as the model is to see it."""
    return MARKER.sub("", text).strip() if "[offline" in text else text


class Control:
    """The knobs of the running program, and how often a marker was already obeyed."""

    def __init__(self, settings: Settings) -> None:
        self._base = Knobs(settings.first_token_ms, settings.token_ms, settings.fault)
        self._set = NOTHING
        self._obeyed: dict[str, int] = {}

    def set(self, said: Mapping[str, Any]) -> None:
        """Replace what an earlier POST /control set; an empty object takes everything back."""
        self._set = read(said)

    def public(self) -> Json:
        """What is set now, `times` counting down, over what it was started with."""
        return {"set": self._set.public(), "started_with": self._base.public()}

    def resolve(self, headers: Mapping[str, str], text: str, model: str, seed: str) -> Knobs:
        """The knobs of one call. `seed` identifies the request: a marker's `times` counts per request."""
        knobs = self._take_control(model).over(self._base)
        marker = in_text(text)
        if marker is not NOTHING and marker.applies_to(model) and self._still(marker, seed):
            knobs = marker.over(knobs)
        header = in_headers(headers)
        knobs = header.over(knobs) if header.applies_to(model) else knobs
        return replace(knobs, fault=None) if knobs.fault == NO_FAULT else knobs

    def _take_control(self, model: str) -> Knobs:
        now = self._set
        if not now.applies_to(model):
            return NOTHING
        if now.times is not None:
            self._set = replace(now, times=now.times - 1) if now.times > 1 else NOTHING
        return now if now.times != 0 else NOTHING

    def _still(self, marker: Knobs, seed: str) -> bool:
        if marker.times is None:
            return True
        obeyed = self._obeyed.pop(seed, 0)
        self._obeyed[seed] = obeyed + 1
        if len(self._obeyed) > MAX_COUNTED:
            del self._obeyed[next(iter(self._obeyed))]
        return obeyed < marker.times


def refusal(knobs: Knobs, stream: bool) -> ApiError | None:
    """The error a fault stands for, if it stands for one."""
    fault = "529" if knobs.fault == "error_event" and not stream else knobs.fault
    if fault not in STATUS_FAULTS:
        return None
    wait = knobs.retry_after if knobs.retry_after is not None else (1 if fault == "429" else None)
    headers = {} if wait is None else {"retry-after": f"{wait:g}"}
    return ApiError(int(fault), STATUS_FAULTS[fault], headers)
