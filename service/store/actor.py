"""Actor of a transaction: on whose behalf it reads or writes, for the audit.

A context variable, set where a request is authenticated, a run's attempt begins or a command is called. Any other
thread of the service is `SERVICE`: supervisor, upkeep, webhooks, batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

from service.types import DEFAULT_WORKSPACE, Caller, Run


class Actor(NamedTuple):
    """A user, by themselves or by API key `key_id`; or another `kind`, without ids."""

    kind: Literal["user", "anonymous", "cli", "service"]
    user_id: str | None = None
    key_id: str | None = None
    workspace_id: str = DEFAULT_WORKSPACE
    family: str | None = None  # of a request: its log-in, where a token was used
    role: str | None = None  # of a request: the role with which it was admitted

    @classmethod
    def of(cls, source: Caller | Run) -> Actor:
        """Return the user behind a request or a run."""
        return cls("user", source.user_id, source.key_id, source.workspace_id)

    @classmethod
    def of_request(cls, caller: Caller) -> Actor:
        """Return the user behind a request, whose log-in or key must hold while it changes anything audited."""
        return cls.of(caller)._replace(family=caller.family, role=caller.role)

    def __str__(self) -> str:
        """Format for a log line: `cli`, `usr_…`, or `usr_…/key_…`."""
        return "/".join(filter(None, (self.user_id or self.kind, self.key_id)))


class Origin(NamedTuple):
    """Address of a client and id of its request; empty where no request is served."""

    address: str | None = None
    request_id: str | None = None


NOWHERE = Origin()
SERVICE = Actor("service")
ANONYMOUS = Actor("anonymous")  # request whose caller is not known, or not yet
_actor: ContextVar[Actor] = ContextVar("actor", default=SERVICE)
_origin: ContextVar[Origin] = ContextVar("origin", default=NOWHERE)


def current_actor() -> Actor:
    """Return the actor of this thread."""
    return _actor.get()


def act_as(actor: Actor) -> None:
    """Set the actor of this thread's transactions from now on; each request of the thread begins with `serve`."""
    _actor.set(actor)


def current_origin() -> Origin:
    """Return the origin of the request that this thread serves."""
    return _origin.get()


def serve(origin: Origin) -> None:
    """Set the origin of this thread, whose caller is not known yet: `ANONYMOUS`."""
    _origin.set(origin)
    _actor.set(ANONYMOUS)


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Set the actor for the length of a block."""
    before = _actor.get()
    _actor.set(actor)
    try:
        yield
    finally:
        _actor.set(before)
