"""Current request: its caller, and the services of its application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import current_app, g

from service.infra.redis_trip import Trip
from service.types import Caller

if TYPE_CHECKING:
    from service.wiring import Services


def services() -> Services:
    built: Services = current_app.extensions["slipway"]
    return built


def current_caller() -> Caller:
    """Return the authenticated caller of this request, set by a guard."""
    caller: Caller = g.caller
    return caller


def current_trip() -> Trip:
    """Return the trip of this request, begun by a guard: its first steps check the log-in and count the call."""
    trip: Trip = g.trip
    return trip
