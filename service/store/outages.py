"""Database outages: the cause in fixed words, told in the log once, and once more when the database is back.

The words of a driver or a server never leave: they may quote an address, a user or a password.
"""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger("slipway.database")
AGAIN = 60.0  # seconds until the same cause is told again
# What libpq, psycopg, PostgreSQL and SQLite say, and what it means. The first that fits.
_CAUSES = (
    ("Connection refused", "connection refused: no server listens there"),
    ("No such file or directory", "no server listens at that socket"),
    ("failed to resolve", "the name of its host cannot be resolved"),
    ("could not translate host name", "the name of its host cannot be resolved"),
    ("authentication failed", "the password or the user is wrong"),
    ("no password supplied", "the server asks for a password, and DATABASE_URL has none"),
    ("no pg_hba.conf entry", "the server's pg_hba.conf does not let this host or user in, or only with TLS"),
    ("certificate", "TLS failed: the server's certificate is not trusted"),
    ("SSL", "TLS failed"),
    ('role "', "the user does not exist or may not log in"),
    ('database "', "there is no such database, or the user may not use it"),
    ("permission denied", "the user may not do this"),
    ("starting up", "the server is starting up"),
    ("shutting down", "the server is shutting down"),
    ("recovery mode", "the server is recovering"),
    ("too many clients", "the server takes no more connections"),
    ("connection slots", "the server takes no more connections"),
    ("statement timeout", "a statement took too long"),
    ("QueuePool limit", "all connections of this process are in use"),
    ("timeout expired", "time-out: the server did not answer"),
    ("timed out", "time-out: the server did not answer"),
    ("No route to host", "its host cannot be reached"),
    ("unreachable", "its host cannot be reached"),
    ("closed the connection", "the server ended the connection"),
    ("terminating connection", "the server ended the connection"),
    ("No space left on device", "the disk is full"),
    ("disk is full", "the disk is full"),
    ("disk I/O error", "the disk fails"),
    ("readonly database", "the file of the database is read-only"),
    ("unable to open database file", "the file of the database cannot be opened"),
    ("not a database", "the file is not a database"),
    ("malformed", "the file of the database is damaged"),
    ("locked", "the database is locked by another process"),
    ("no such table", "it is not migrated: run `alembic upgrade head`"),
)


class Unfit(Exception):
    """A database that is there and must not be used. The message is a sentence for the log."""


def cause_of(error: BaseException) -> str:
    """Why the database cannot be used, in words that quote nothing."""
    if isinstance(error, Unfit):
        return str(error)
    text = str(error)
    return next((cause for sign, cause in _CAUSES if sign in text), type(error).__name__)


class Outages:
    """Tells a cause once, however many threads meet it, and the end of the outage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told_at: dict[str, float] = {}
        self._told = False  # this outage
        self.cause = ""  # of the outage that goes on; empty: there is none

    def met(self, error: BaseException) -> None:
        cause, now = cause_of(error), time.monotonic()
        with self._lock:
            self.cause = cause
            due = now - self._told_at.get(cause, -AGAIN) >= AGAIN
            if due:
                self._told_at[cause], self._told = now, True
        if due:
            log.error("database_away", extra={"cause": cause})

    def over(self) -> None:
        """A transaction was committed."""
        with self._lock:
            told, self._told, self.cause = self._told, False, ""
        if told:
            log.warning("database_back")
