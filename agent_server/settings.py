"""Settings of the program, from the command line and the environment; names that Slipway has mean the same here."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from pydantic import ValidationError

from config.base import Settings as Slipway
from config.checks import LOOPBACK
from config.observe import Observe
from service.types import Tier

TOKEN = "AGENT_SERVER_TOKEN"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
AT_ONCE = 16  # runs; each has two threads


@dataclass(frozen=True, slots=True)
class Settings:
    """Start settings. Times are in seconds; `at_once` bounds the runs, further ones are refused."""

    folders: tuple[Path, ...]
    host: str
    port: int
    at_once: int
    token: str
    models: Mapping[Tier, str]
    fetch_hosts: tuple[str, ...]
    model_timeout: float
    connect_timeout: float
    graceful_timeout: int
    log_format: Literal["auto", "json", "text"]
    log_level: str
    traces: Observe


def parse(argv: list[str] | None = None) -> Settings:
    """Parse argv and the environment. Exits with a usage text, or the fault."""
    parser = argparse.ArgumentParser(prog="python -m agent_server", description=__doc__)
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="an agent, as agents/research"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"most runs at once; default {AT_ONCE}")
    given = parser.parse_args(argv)
    if not (0 < given.port < 65_536 and 0 < given.at_once <= 1_000):
        parser.error("--port must be from 1 to 65535, --at-once from 1 to 1000")
    token = _secret(TOKEN)
    if not token and given.host not in LOOPBACK:
        sys.exit(f"Set {TOKEN}, or listen on 127.0.0.1: others could ask these agents.")
    models = {tier: _value(f"MODEL_{tier.upper()}") for tier in ("simple", "medium", "complex")}
    return Settings(
        folders=tuple(given.folders),
        host=given.host,
        port=given.port,
        at_once=given.at_once,
        token=token,
        models=cast(Mapping[Tier, str], models),
        fetch_hosts=tuple(_value("FETCH_HOSTS").split(",")),
        model_timeout=_seconds("MODEL_TIMEOUT"),
        connect_timeout=_seconds("MODEL_CONNECT_TIMEOUT"),
        graceful_timeout=round(_seconds("GRACEFUL_TIMEOUT")),
        log_format=_chosen("LOG_FORMAT", "auto", "json", "text"),  # type: ignore[arg-type]
        log_level=_chosen("LOG_LEVEL", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        traces=_traces(),
    )


def _traces() -> Observe:
    """Read the settings of traces. Exits with the names of those that are wrong."""
    names = [name for name in Observe.model_fields if name.startswith("otel_")]
    given = {name: os.environ[name.upper()] for name in names if os.environ.get(name.upper())}
    if secret := _secret(HEADERS):
        given[HEADERS.lower()] = secret
    try:
        # No content: what guardrails leave of it, the Slipway knows that asks.
        own = {"otel_service_name": "agent-server", **given, "otel_capture_content": False}
        return Observe.model_validate(own)
    except ValidationError as error:
        wrong = {str(fault["loc"][0]).upper() for fault in error.errors(include_input=False)}
        sys.exit(f"{', '.join(sorted(wrong))}: see docs/settings.md.")


def _value(name: str) -> str:
    """Read a variable; unset or empty, the default that Slipway has."""
    return os.environ.get(name) or str(Slipway.model_fields[name.lower()].get_default())


def _seconds(name: str) -> float:
    try:
        seconds = float(_value(name))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        sys.exit(f"{name} must be a number of seconds.")
    return seconds


def _chosen(name: str, *choices: str) -> str:
    value = _value(name)
    if value not in choices:
        sys.exit(f"{name} must be one of {', '.join(choices)}.")
    return value


def _secret(name: str) -> str:
    """Read a variable, or the file that `NAME_FILE` names."""
    path = os.environ.get(f"{name}_FILE")
    try:
        return Path(path).read_text("utf-8").strip() if path else os.environ.get(name, "").strip()
    except (OSError, ValueError):
        sys.exit(f"{name} cannot be read from the file that {name}_FILE names.")
