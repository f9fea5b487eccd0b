"""The request under way: its caller, and the services of the application that handles it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import current_app, g

from service.types import Caller

if TYPE_CHECKING:
    from service.wiring import Services


def services() -> Services:
    """Everything the application is made of."""
    built: Services = current_app.extensions["slipway"]
    return built


def current_caller() -> Caller:
    """Authenticated caller of this request; set by a guard."""
    caller: Caller = g.caller
    return caller
