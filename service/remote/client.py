"""Client of remote agents: asks one over its protocol, in a thread of its own, so that the run can be stopped."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from service.agents.remote_spec import hosts_of, is_allowed, names_of
from service.errors import ModelUnavailable, RemoteFailed, RemoteUnavailable, SlipwayError
from service.infra.http import (
    AddressRefused,
    ConnectionBroken,
    Control,
    NoAnswer,
    SafeClient,
    StreamedAnswer,
)
from service.llm.breaker import Breaker, BreakerPermit
from service.observe import tracing
from service.remote import a2a, post
from service.remote.task import AnswerBroken, RemoteAnswer, RemoteEvent, RemoteTask

MOST_SECONDS = 3_600.0  # of one exchange; the run's own deadline is nearer
CANCEL_SECONDS = 2.0
FAILURES, RECOVERY = 5, 15.0  # failures in a row after which a host is paused, and for how many seconds
MAX_WAITING = 256  # events that the run has not taken yet: then the remote agent waits
BROKE_OFF = "The remote agent's answer broke off."
RETRY_SECONDS = 0.5  # before the one repetition of a request that was not answered
PAUSE_SECONDS = 2.0  # between two tries to reach an agent that is waited for


class RemoteHosts(NamedTuple):
    """Hosts that the operator allows, `name` or `name:port`, on any network; `bearers` are their tokens."""

    allowed: frozenset[str]
    bearers: Mapping[str, str]

    @classmethod
    def of(cls, hosts: str, credentials: str) -> RemoteHosts:
        """Parse the settings `REMOTE_HOSTS` and `REMOTE_CREDENTIALS`."""
        pairs = (pair.strip().partition("=") for pair in credentials.split(",") if pair.strip())
        return cls(
            hosts_of(hosts),
            {host.strip().lower(): token.strip() for host, _, token in pairs},
        )

    def check(self, url: str) -> None:
        """Raise `RemoteFailed` for an address that gets neither the conversation nor a run's token."""
        if not is_allowed(url, self.allowed):
            raise RemoteFailed("The remote agent's host is not among REMOTE_HOSTS.")

    def bearer(self, url: str) -> dict[str, str]:
        """Return the header with the token for an address, if there is one."""
        for host in names_of(url):
            if host in self.bearers:
                return {"Authorization": f"Bearer {self.bearers[host]}"}
        return {}


class RemoteClient:
    """Thread-safe; one per process."""

    def __init__(self, hosts: RemoteHosts) -> None:
        self.hosts = hosts
        self._http = SafeClient(allow_private=True, seconds=MOST_SECONDS)
        self._breakers: dict[str, Breaker] = {}
        self._lock = threading.Lock()

    def ask(self, task: RemoteTask, protocol: str, seconds: float, silence: float) -> Exchange:
        """Begin to ask. `silence`: the longest wait for the next byte, in seconds."""
        return Exchange(self, task, protocol, seconds, silence)

    def transport(self, url: str) -> SafeClient:
        """Return the client for an address. Raises `RemoteFailed` for a host that is not allowed."""
        self.hosts.check(url)
        return self._http

    def breaker(self, url: str) -> Breaker:
        host = urlsplit(url).netloc.lower()
        with self._lock:
            return self._breakers.setdefault(host, Breaker(host, FAILURES, RECOVERY))


class Exchange:
    """One question under way: `events` are read by the run's thread, the answer by a thread of this exchange."""

    def __init__(
        self, client: RemoteClient, task: RemoteTask, protocol: str, seconds: float, silence: float
    ) -> None:
        self._client, self._task, self._protocol = client, task, protocol
        self._end = time.monotonic() + seconds
        self._told: queue.Queue[RemoteEvent | RemoteAnswer | Exception] = queue.Queue(MAX_WAITING)
        self._closed = threading.Event()
        self._task_id = ""  # A2A's, once it is told
        self._control = Control(silence)
        trace = tracing.traceparent()
        self._trace = {"traceparent": trace} if trace else {}
        self._broken = False  # whether a connection ended that was made: its process may have been killed
        self._received = False  # of an answer, which is then not asked for again
        self._thread = threading.Thread(target=self._work, name="remote-agent", daemon=True)
        self._thread.start()

    def events(self, pause: float) -> Iterator[RemoteEvent | RemoteAnswer | None]:
        """Yield events and last the answer; None after each `pause` seconds without any.

        Raises `RemoteFailed`, `RemoteUnavailable` and `AnswerBroken`.
        """
        while True:
            try:
                told = self._told.get(timeout=pause)
            except queue.Empty:
                yield None
                continue
            if isinstance(told, Exception):
                raise told
            yield told
            if isinstance(told, RemoteAnswer):
                return

    def close(self, *, cancelled: bool) -> None:
        """End the exchange; `cancelled`: tell the remote agent, once."""
        self._closed.set()
        self._control.abort()
        if cancelled:
            with suppress(AddressRefused, NoAnswer, RemoteFailed):
                self._cancel()

    def _cancel(self) -> None:
        """Send the protocol's cancellation. Raises `AddressRefused` and `NoAnswer`."""
        url, body = self._task.url, orjson.dumps({"run_id": self._task.body["run_id"]})
        if self._protocol == "post":
            url = f"{url.rstrip('/')}/cancel"
        elif self._task_id:
            body = a2a.cancel_of(self._task_id)
        else:
            return
        headers = {
            "Content-Type": "application/json",
            "A2A-Version": a2a.VERSION,
            **self._client.hosts.bearer(url),
        }
        with self._client.transport(url).stream("POST", url, headers, body, seconds=CANCEL_SECONDS):
            pass

    def _work(self) -> None:
        try:
            for told in self._told_by_remote():
                if isinstance(told, RemoteEvent) and told.kind == "task":
                    self._task_id = told.data["id"]
                else:
                    self._put(told)
        except (SlipwayError, AnswerBroken) as error:
            self._put(error)
        except Exception:  # such as recursion in its JSON
            self._put(RemoteFailed("The remote agent sent an answer that cannot be read."))

    def _put(self, told: RemoteEvent | RemoteAnswer | Exception) -> None:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._told.put(told, timeout=0.2)
                return

    def _told_by_remote(self) -> Iterator[RemoteEvent | RemoteAnswer]:
        """Ask until an answer begins, for the task's patience."""
        end = time.monotonic() + self._task.patience
        while True:
            try:
                yield from self._asked_twice()
                return
            except RemoteUnavailable:
                if time.monotonic() > end or self._closed.wait(PAUSE_SECONDS):
                    raise

    def _asked_twice(self) -> Iterator[RemoteEvent | RemoteAnswer]:
        """Ask, and once more where no answer began: the key lets the remote agent know the question again."""
        breaker = self._client.breaker(self._task.url)
        for last in (False, True):
            permit = _permit(breaker)
            verdict = breaker.release
            try:
                for told in self._answer():
                    verdict = breaker.record_success
                    yield told
                return
            except (AddressRefused, NoAnswer) as error:
                if self._closed.is_set():  # ended by us, which says nothing about the host
                    return
                verdict = breaker.record_failure
                self._broken |= isinstance(error, ConnectionBroken)
                final = last or self._received or isinstance(error, AddressRefused)
                if final or self._closed.wait(RETRY_SECONDS):
                    raise self._failure(error) from None
            except RemoteUnavailable:
                verdict = breaker.record_failure
                if last or self._closed.wait(RETRY_SECONDS):
                    raise
            except RemoteFailed:
                verdict = breaker.record_success  # it is there
                raise
            finally:
                verdict(permit)

    def _failure(self, error: Exception) -> Exception:
        """Return the error of an exchange without an answer. One whose process was there may be starting again."""
        if self._broken:
            return AnswerBroken(BROKE_OFF)
        if self._received:
            return RemoteFailed(BROKE_OFF)
        return RemoteUnavailable(f"The remote agent gave no answer. {error}")

    def _answer(self) -> Iterator[RemoteEvent | RemoteAnswer]:
        if self._protocol == "a2a":
            yield from a2a.ask(
                self._task, partial(self._posted, a2a.headers_of(self._task)), self._closed.wait
            )
            return
        with self._posted(post.headers_of(self._task), post.body_of(self._task)) as answer:
            yield from post.read(answer)

    @contextmanager
    def _posted(self, headers: Mapping[str, str], body: bytes) -> Iterator[StreamedAnswer]:
        """Post within the time that is left; the answer has status 200."""
        url, client = self._task.url, self._client
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise RemoteUnavailable("There was no time left to ask the remote agent.")
        sent = {**headers, **self._trace, **client.hosts.bearer(url)}
        with client.transport(url).stream(
            "POST", url, sent, body, seconds=seconds, control=self._control
        ) as answer:
            _check_status(answer)
            self._received = True
            yield answer


def _permit(breaker: Breaker) -> BreakerPermit:
    try:
        return breaker.allow()
    except ModelUnavailable as error:
        raise RemoteUnavailable("The remote agent is away.", retry_after=error.retry_after) from None


def _check_status(answer: StreamedAnswer) -> None:
    """Raise `RemoteUnavailable` for an overloaded agent, and `RemoteFailed` for any other answer but 200."""
    if answer.status in (429, 502, 503, 504, 529):
        raise RemoteUnavailable(f"The remote agent answered with status {answer.status}.")
    if answer.status != 200:
        raise RemoteFailed(f"The remote agent answered with status {answer.status}.")
