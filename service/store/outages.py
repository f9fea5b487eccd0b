"""Database outages: classify driver errors, name their cause in fixed words, log each outage once.

Messages of drivers and servers are never passed on: they may quote an address, a user or a password.
"""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger("slipway.database")
LOG_AGAIN = 60.0  # seconds until the same cause is logged again
READ_ONLY = "the server is read-only: a standby, or default_transaction_read_only is on"
FULL = "the disk is full"
FAILS = "the disk fails"
STALE = "what a connection has prepared does not fit the schema any more"
READ_ONLY_FILE = "the file of the database is read-only"
ENDED = "the server ended the connection"
NO_RIGHT = "the user may not do this: let it own the database and its schema"
NO_OPTION = "DATABASE_URL has an option that no connection has"
# Reads still succeed with these causes: only a write proves that they are over.
REFUSES_WRITES = frozenset({READ_ONLY, FULL, FAILS, READ_ONLY_FILE})
# Prefixes of the SQLSTATEs of retryable errors and their causes; the first match counts.
# https://www.postgresql.org/docs/current/errcodes-appendix.html; poolers answer 08P01.
_STATES = (
    ("08", "the connection to the server was lost"),
    ("0A000", STALE),
    ("25006", READ_ONLY),
    ("25P03", ENDED),  # idle_in_transaction_session_timeout
    ("25P04", ENDED),  # transaction_timeout
    ("26000", STALE),  # or it was deallocated
    ("53100", FULL),
    ("53200", "the server is out of memory"),
    ("53300", "the server takes no more connections"),
    ("53", "the server lacks a resource"),
    ("55P03", "a lock was not to be had in time"),
    ("57014", "a statement took too long"),
    ("57P03", "the server is starting up, shutting down or recovering"),
    ("57", ENDED),
    ("58", FAILS),
)
_OF_POOLERS = "08P01"  # for every error: the message says more
# Of those, states that affect the whole pool: after a failover another server takes over.
# A connection with a stale plan would refuse its statement for ever: outside of a transaction nothing clears it.
_LOST_STATES = ("08", "0A000", "25006", "26000", "57P")
# Result codes of SQLite, https://www.sqlite.org/rescode.html
_LOST_CODES = frozenset({8, 10, 14})  # READONLY, IOERR, CANTOPEN: open connections keep the fault
_UNUSABLE_CODES = frozenset({11, 26})  # CORRUPT, NOTADB: outages that are no OperationalError
# Substrings of messages from libpq, psycopg, PostgreSQL and SQLite, with their cause; the first match counts.
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
    (
        "query_wait_timeout",
        "the pooler had no connection to the server for it in time: the pooler's own log says why",
    ),
    ("server_login_retry", "the pooler cannot sign in to the server: the pooler's own log says why"),
    ("max_client_conn", "the pooler takes no more connections (its max_client_conn)"),
    ("no such database", "the pooler has no such database in its [databases]"),
    ('database "', "there is no such database, or the user may not use it"),
    ("permission denied", NO_RIGHT),
    ("invalid connection option", NO_OPTION),
    ("session is read-only", READ_ONLY),
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
    ("closed the connection", ENDED),
    ("terminating connection", ENDED),
    ("No space left on device", FULL),
    ("disk is full", FULL),
    ("disk I/O error", FAILS),
    ("readonly database", READ_ONLY_FILE),
    ("unable to open database file", "the file of the database cannot be opened"),
    ("not a database", "the file is not a database"),
    ("malformed", "the file of the database is damaged"),
    ("locked", "the database is locked by another process"),
    ("no such table", "it is not migrated: run `alembic upgrade head`"),
)


class Unfit(Exception):
    """Database that is reachable and must not be used. The message is a sentence for the log."""


class ReadOnly(Unfit):
    """Server that reports itself as read-only."""

    def __init__(self) -> None:
        super().__init__(READ_ONLY)


def cause_of(error: BaseException) -> str:
    """Name the cause of an outage in fixed words, which quote no message."""
    if isinstance(error, Unfit):
        return str(error)
    error = _of_driver(error)
    state, text = _state(error), str(error)
    if state == _OF_POOLERS and (cause := _of_text(text)):
        return cause
    return _of_state(state) or _of_text(text) or type(error).__name__


def is_outage(error: BaseException) -> bool:
    """Return whether an error means an outage, by its SQLSTATE or SQLite's result code."""
    error = _of_driver(error)
    return _of_state(_state(error)) is not None or _code(error) in _UNUSABLE_CODES


def is_lost(error: BaseException) -> bool:
    """Return whether all connections made until now are lost, not only the one with this error."""
    error = _of_driver(error)
    return (
        isinstance(error, ReadOnly) or _state(error).startswith(_LOST_STATES) or _code(error) in _LOST_CODES
    )


def _of_driver(error: BaseException) -> BaseException:
    return getattr(error, "orig", None) or error


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def _code(error: BaseException) -> int:
    """SQLite's primary result code; 0: none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _of_text(text: str) -> str | None:
    return next((cause for part, cause in _CAUSES if part in text), None)


def _of_state(state: str) -> str | None:
    return next((cause for prefix, cause in _STATES if state.startswith(prefix)), None)


class Outages:
    """Logs database outages.

    `database_away` once per cause and minute in this process, `database_back` when one ends; `name` tells
    which database.
    """

    def __init__(self, name: str = "service") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._logged_at: dict[str, float] = {}  # by cause, time.monotonic()
        self._logged = False  # whether the current outage was logged
        self.cause = ""  # of the current outage; empty: none

    @property
    def refuses_writes(self) -> bool:
        """Return whether the database answers reads and refused the last write."""
        return self.cause in REFUSES_WRITES

    def report(self, error: BaseException) -> None:
        cause, now = cause_of(error), time.monotonic()
        with self._lock:
            self.cause = cause
            due = now - self._logged_at.get(cause, -LOG_AGAIN) >= LOG_AGAIN
            if due:
                self._logged_at[cause], self._logged = now, True
        if due:
            log.error("database_away", extra={"cause": cause, "database": self._name})

    def over(self, *, wrote: bool) -> None:
        """End the outage after a commit; where writes are refused only one that `wrote` ends it."""
        with self._lock:
            if self.refuses_writes and not wrote:
                return
            logged, self._logged, self.cause = self._logged, False, ""
        if logged:
            log.warning("database_back", extra={"database": self._name})
