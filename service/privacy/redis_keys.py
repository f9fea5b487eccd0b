"""Register of Redis keys: what is under each prefix, and how a person's part of it is erased.

A prefix that is missing here fails `tests/rules/test_personal_data.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import redis
from redis.exceptions import ResponseError

from service.cache.forget import forget_answers
from service.infra.redis_client import answered
from service.runs.events.event_stream import stream_key

BATCH = 500  # keys per round trip
PERSONAL = {
    "slipway:answer": "answers that the user caused, of agents and of models: searched for and deleted",
    "slipway:vectors": "vectors of their questions: deleted with the answers",
    "slipway:stream": "events of their runs, an hour after the end: deleted with the runs",
    "slipway:attempts": "wrong passwords of an account, by a digest of its name: deleted",
    "slipway:key": "user of an API key, with their name: expires in 30 s",
    "slipway:flight": "failure of a run, for others with the same question: expires in 5 s",
    "slipway:landing": "answer of a run, for others with the same question: expires in 30 s",
}
NOBODYS = {
    "slipway:landings": "ids of runs",
    "slipway:running": "ids of runs, by user id: expires with the longest run",
    "slipway:relayed": "keys of cached answers of models, by user id: expire with the last of them",
    "slipway:rate": "counters by user id and by address: expire with their window",
    "slipway:distrusted": "ids of log-ins and digests of keys, which are refused: expire",
    "slipway:jobs": "Celery's messages: ids of runs",
    "slipway:said": "digests of faults in agents",
    "slipway:oidc": "random states of sign-ins that have come back: expire in ten minutes",
    "slipway:ready": "probes",
}

KnownRuns = Callable[[Sequence[str]], set[str]]  # returns which of these runs are in the database


class Erased(NamedTuple):
    """Deleted keys: cached answers of the user, and streams of deleted runs, which may be another's."""

    answers: int
    orphaned_streams: int


def erase(client: redis.Redis, user_id: str, known: KnownRuns) -> Erased:
    """Delete a user's keys once their runs are deleted. Raises `redis.RedisError`."""
    return Erased(forget_answers(client, user_id), _delete_orphaned_streams(client, known))


def rewrite_files(client: redis.Redis) -> None:
    """Begin to write the append-only file anew, without deleted keys; nothing where there is none, or no right to."""
    with suppress(ResponseError):
        if isinstance(client, redis.Redis) and client.info("persistence").get("aof_enabled"):
            client.bgrewriteaof()


def _delete_orphaned_streams(client: redis.Redis, known: KnownRuns) -> int:
    """Delete the streams of runs that are gone, whoever had them, and whoever deleted them: nobody may read these."""
    prefix, deleted, batch = stream_key(""), 0, list[str]()
    found: Any = client.scan_iter(match=f"{prefix}*", count=BATCH)
    for key in found:
        batch.append(key.decode().removeprefix(prefix))
        if len(batch) == BATCH:
            deleted += _delete_orphans(client, batch, known)
            batch = []
    return deleted + _delete_orphans(client, batch, known)


def _delete_orphans(client: redis.Redis, run_ids: Sequence[str], known: KnownRuns) -> int:
    gone = sorted(set(run_ids) - known(run_ids)) if run_ids else []
    if gone:
        answered(client, *(("DEL", stream_key(run_id)) for run_id in gone))
    return len(gone)
