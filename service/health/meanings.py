"""Meanings of degraded parts, and what to do, in the words of docs/when-a-part-is-down.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Meaning(NamedTuple):
    """Meaning of a degraded part: what is left without it, what to do, and the page of `docs/` that says more."""

    means: str
    do: str
    see: str


MEANINGS: Mapping[str, Meaning] = {
    "database": Meaning(
        "Only cached answers are given; all else is 503 `database_unavailable` until it is back.",
        "Look for `database_away` in the log, which has the cause, and bring the database back.",
        "when-a-part-is-down.md",
    ),
    "redis": Meaning(
        "Limits are counted per process, answers are not cached, streams are read from the database.",
        "Bring Redis back, or make room where the reason is `full`; nothing has to be repaired afterwards.",
        "when-a-part-is-down.md",
    ),
    "model": Meaning(
        "Agents use their other models, or a stale answer where they allow one; else 503 `model_unavailable`.",
        "Look at the status page of the provider and at the key; another provider can take the calls.",
        "providers.md",
    ),
    "worker": Meaning(
        "Tasks are accepted, and executed by the web processes.",
        "Start a task worker, or leave it so where none is wanted.",
        "when-a-part-is-down.md",
    ),
    "keyring": Meaning(
        "Keys are known for ten minutes; without, texts of users are 503 `keyring_unavailable`.",
        "Bring the database of `KEYRING_URL` back.",
        "when-a-part-is-down.md",
    ),
    "breaker": Meaning(
        "After failures in a row a model is given a pause: its calls fail at once, or go to another model.",
        "It closes by itself with the first call that succeeds; look at the errors in `llm_call` lines.",
        "providers.md",
    ),
    "mcp": Meaning(
        "Calls of this server's tools fail at once with a clear tool error; its agents are served.",
        "Start the server; the connection is made again by itself.",
        "mcp.md#when-a-server-is-away",
    ),
    "process": Meaning(
        "A process is gone without a word; another takes its runs up after their last stored step.",
        "Look at its last log lines and its exit; one that was killed for memory needs more.",
        "when-a-part-is-down.md#how-a-run-survives-its-worker",
    ),
    "versions": Meaning(
        "Processes of several versions serve side by side, as during a roll-out.",
        "Finish the roll-out, or roll it back.",
        "deploy.md",
    ),
    "tasks": Meaning(
        "Tasks have been waiting in line for more than five minutes.",
        "Add task workers; a task of low priority may wait longer by itself.",
        "running.md#whose-turn-it-is",
    ),
    "schedules": Meaning(
        "Slots of schedules are overdue by more than a minute; their policy for missed slots will apply.",
        "See that a process with a sweep is alive; look for `schedule_run` lines in the log.",
        "schedules.md#watch",
    ),
    "holds": Meaning(
        "Holds are older than an hour; their amounts are not spent, and not free either.",
        "None: the run that has them settles them, or the sweep does after its end.",
        "money.md#abandoned-holds",
    ),
    "audit": Meaning(
        "Rows of the audit do not match its chain, or wait for their link for more than a minute.",
        "Run `flask audit verify`, which names the first wrong row; keep a copy before anything else.",
        "audit.md#verify-it",
    ),
    "agent": Meaning(
        "An admin has stopped this agent: none of its calls begins, its runs wait.",
        "Release it once the reason is gone.",
        "operator.md#stop-an-agent",
    ),
    "disk": Meaning(
        "Less than a tenth of the disk is free; when it is full, SQLite and metrics cannot be written.",
        "Make room, or enlarge the volume of `SLIPWAY_HOME`.",
        "when-a-part-is-down.md",
    ),
}
