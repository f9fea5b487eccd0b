"""Checks of `flask doctor`: each names what is wrong with one part, and how to mend it."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from service.cli.mcp import reached
from service.errors import KeyringUnavailable, ModelError
from service.mcp.config import ServerSpec
from service.store import fitness
from service.types import NO_USAGE, now_ms
from service.usage.prices import today
from service.wiring import Services

FAST, SKEWED = 2_000, 30_000  # ms between two clocks: worth a warning, and no longer what tokens allow for
FULL, FILLING = 200 << 20, 2 << 30  # bytes free
OLD = timedelta(days=60)  # since prices were compared


class Finding(NamedTuple):
    """Result about one part. `state`: ok, warning or error; `mend`: what to do."""

    state: str
    says: str
    mend: str = ""


Check = Callable[[Services], Iterator[Finding]]


def checks(parts: Services) -> dict[str, Check]:
    """Return the checks of this installation by the names of its parts."""
    servers = {f"MCP {name}": partial(_mcp, name, spec) for name, spec in parts.mcp.config.servers.items()}
    return {
        "settings": _settings,
        "database": _database,
        "redis": _redis,
        "keys": _keys,
        "texts": _texts,
        "model": _model,
        "prices": _prices,
        "agents": _agents,
        "MCP servers": _mcp_file,
        "workers": _workers,
        "disk": _disk,
        "open files": _open_files,
        **servers,
    }


def _settings(parts: Services) -> Iterator[Finding]:
    environment = parts.settings.environment
    if environment in ("development", "testing"):
        yield Finding("ok", f"APP_ENV={environment}: for one machine, not for users")
    else:
        yield Finding("ok", f"APP_ENV={environment}")


def _database(parts: Services) -> Iterator[Finding]:
    began = time.monotonic()
    theirs = parts.infra.db.query(fitness.clock, patience=0)
    took = (time.monotonic() - began) * 1000
    yield Finding("ok", f"answers in {took:.1f} ms, and has the schema of this version")
    yield from skew("the database", theirs - now_ms())


def _redis(parts: Services) -> Iterator[Finding]:
    fault = parts.infra.redis_store.check()
    if fault:
        yield Finding(
            "error", fault, "Mend REDIS_URL or the server: docs/when-a-part-is-down.md says what is left."
        )
        return
    yield Finding("ok", "answers, and grants all rights")
    clock = parts.infra.redis_store.attempt(lambda client: client.time())
    if isinstance(clock, tuple):  # of a cluster it is one for each node
        yield from skew("Redis", clock[0] * 1000 + clock[1] // 1000 - now_ms())


def skew(whose: str, ms: int) -> Iterator[Finding]:
    """Judge a clock that is `ms` ahead of this machine's."""
    if abs(ms) >= FAST:
        state = "error" if abs(ms) >= SKEWED else "warning"
        side = "ahead of" if ms > 0 else "behind"
        says = f"the clock of {whose} is {abs(ms) / 1000:.0f} s {side} this machine's"
        yield Finding(state, says, "Have both follow one time server (NTP).")


def _keys(parts: Services) -> Iterator[Finding]:
    unreadable = parts.auth.tokens.keys.unreadable()
    if unreadable:
        says = f"{unreadable} signing keys were made under another SECRET_KEY: its users sign in again"
        yield Finding(
            "warning", says, "Set the SECRET_KEY of this database, unless it was changed on purpose."
        )
    else:
        yield Finding("ok", "SECRET_KEY opens all signing keys")


def _texts(parts: Services) -> Iterator[Finding]:
    mend = "Set the KEYRING_URL of this database: without it the texts of users cannot be read."
    try:
        parts.infra.db.query(fitness.read_newest_text, patience=0)
    except KeyringUnavailable as error:
        yield Finding("error", error.detail, mend)
    else:
        yield Finding("ok", "not sealed" if parts.keyring is None else "sealed, and the keyring opens them")


def _model(parts: Services) -> Iterator[Finding]:
    try:
        parts.runs.model.calls.ping()
    except ModelError as error:
        yield Finding(
            "error",
            error.detail,
            "Check ANTHROPIC_BASE_URL, ANTHROPIC_API_KEY and the way out of this machine.",
        )
    else:
        yield Finding("ok", f"reached at {parts.settings.anthropic_base_url or 'the provider'}")


def _prices(parts: Services) -> Iterator[Finding]:
    table = parts.usage.prices
    models = {model for agent in parts.agents.agents.values() for model in agent.models}
    for model in sorted(models):
        if table.usd_today(model, NO_USAGE) is None:
            yield Finding(
                "error", f"{model} has no price, so every call is refused", "Add a row: see docs/money.md."
            )
    mend = "Compare with the provider's pages (`flask prices check`), and set `checked` in the table."
    if table.checked is None or today() - table.checked > OLD:
        yield Finding(
            "warning", f"were last compared on {table.checked}, more than {OLD.days} days ago", mend
        )
    else:
        yield Finding("ok", f"compared on {table.checked}")


def _agents(parts: Services) -> Iterator[Finding]:
    mend = (
        "`flask agents check` shows all of them; the last good state is served meanwhile, if there was one."
    )
    for fault in parts.agents.faults:
        yield Finding("error", str(fault), mend)
    for warning in parts.agents.warnings:
        yield Finding("warning", str(warning))
    served = len(parts.agents.agents)
    if served:
        yield Finding("ok", f"{served} served")
    else:
        yield Finding(
            "error",
            f"none are served from {parts.settings.agents_dir}",
            "Set AGENTS_DIR, or `flask agents new`.",
        )


def _mcp_file(parts: Services) -> Iterator[Finding]:
    for fault in parts.mcp.config.faults:
        yield Finding(
            "error",
            f"{parts.mcp.config.file}:{fault.line}: {fault.field}: {fault.detail}",
            "See docs/mcp.md.",
        )
    yield Finding("ok", f"{len(parts.mcp.config.servers)} named")


def _mcp(name: str, spec: ServerSpec, parts: Services) -> Iterator[Finding]:
    if spec.credentials == "user":
        yield Finding("ok", "not asked, as each user has a credential (`flask mcp check --user NAME`)")
    elif parts.mcp.connections is not None:
        fault = reached(parts.mcp.connections, name, spec, "")
        if fault:
            yield Finding("warning", fault, "Agents go on without its tools. Start it, or mend its entry.")
        else:
            yield Finding("ok", "offers the tools that are named")


def _workers(parts: Services) -> Iterator[Finding]:
    counts = {kind: parts.runs.supervisor.workers_alive(kind) for kind in ("web", "task")}
    if not counts["task"] and counts["web"]:
        yield Finding(
            "warning", "no task worker runs, so web processes execute tasks too", "Start one: docs/deploy.md."
        )
    else:
        yield Finding("ok", f"{counts['web']} web and {counts['task']} task processes run")


def _seen_by_others(home: Path) -> bool:
    """Whether other users may read the folder. A mount of another owner, as containers have, is not ours to change."""
    folder = home.stat()
    if home.is_mount() and folder.st_uid != os.geteuid():
        return False
    return bool(folder.st_mode & (stat.S_IROTH | stat.S_IXOTH))


def _disk(parts: Services) -> Iterator[Finding]:
    home = parts.settings.slipway_home
    if not home.is_dir():
        return (yield Finding("ok", f"{home} is made by the first start"))
    free = shutil.disk_usage(home).free
    state = "error" if free < FULL else "warning" if free < FILLING else "ok"
    yield Finding(
        state,
        f"{free / (1 << 30):.1f} GiB free in {home}",
        "" if state == "ok" else "Make room, or move SLIPWAY_HOME.",
    )
    if not os.access(home, os.W_OK):
        yield Finding("error", f"{home} cannot be written", "Give it to the user who runs the service.")
    if _seen_by_others(home):
        yield Finding("warning", f"every user of this machine can look into {home}", f"chmod 700 {home}")


def _open_files(parts: Services) -> Iterator[Finding]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = (
        2 * parts.settings.threads + 1_000
    )  # of a web process: a request and its call of a model, idle connections
    if most != resource.RLIM_INFINITY and most < needed:
        says = f"{most} allowed, and THREADS={parts.settings.threads} needs about {needed}"
        yield Finding("warning", says, "Raise the hard limit: LimitNOFILE, `ulimit -Hn`.")
    else:
        yield Finding("ok", f"{most if most != resource.RLIM_INFINITY else 'any number of'} allowed")
