"""Current request: its caller, and the services of its application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import current_app, g

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
