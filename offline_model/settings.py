"""Settings of the offline model, from the command line and OFFLINE_MODEL_*; the command line wins."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Start settings. Times are in milliseconds."""

    host: str = "127.0.0.1"
    port: int = 8099
    port_file: str | None = None
    first_token_ms: float = 0.0
    token_ms: float = 0.0
    fault: str | None = None
    min_cache_tokens: int = 1024
    batch_delay_ms: float = 200.0
    die_with_parent: bool = False
    parent_pid: int | None = None


def parse(argv: list[str] | None = None) -> Settings:
    """Parse argv, OFFLINE_MODEL_* and defaults, in this order. Exits with usage on an invalid value."""
    parser = argparse.ArgumentParser(prog="python -m offline_model", description=__doc__)
    add, env = parser.add_argument, _env
    add("--host", default=env("HOST", "127.0.0.1"))
    add(
        "--port",
        type=_port,
        default=env("PORT", "8099"),
        help="0 picks a free one; the first line says which",
    )
    add("--port-file", default=env("PORT_FILE"), help="write the port here once listening")
    add("--first-token-ms", type=_milliseconds, default=env("FIRST_TOKEN_MS", "0"))
    add("--token-ms", type=_milliseconds, default=env("TOKEN_MS", "0"))
    add("--fault", default=env("FAULT"), help="apply this fault to every call (see docs/offline-model.md)")
    add("--min-cache-tokens", type=_tokens, default=env("MIN_CACHE_TOKENS", "1024"))
    add("--batch-delay-ms", type=_milliseconds, default=env("BATCH_DELAY_MS", "200"))
    add("--die-with-parent", action="store_true", help="Linux: killed when the thread that started it ends")
    add("--parent-pid", type=int, help="end within about a second of this process no longer being the parent")
    return Settings(**vars(parser.parse_args(argv)))


def _number(kind: Callable[[str], float], most: float, words: str) -> Callable[[str], float]:
    """Build an argparse type whose error message describes valid values."""

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = -1
        if not 0 <= number <= most:
            raise argparse.ArgumentTypeError(f"must be {words}")
        return number

    return read


_port = _number(int, 65_535, "a whole number from 0 to 65535")
_milliseconds = _number(float, 1e9, "a number of milliseconds from 0 to a billion")
_tokens = _number(int, 10**9, "a whole number from 0 to a billion")


def _env(name: str, default: str | None = None) -> str | None:
    """Read a variable; empty counts as unset, as Compose files pass it."""
    return os.environ.get(f"OFFLINE_MODEL_{name}") or default
