"""Client of remote agents: asks one over its protocol, in a thread of its own, so that the run can be stopped."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from service.errors import ModelUnavailable, RemoteFailed, RemoteUnavailable, SlipwayError
from service.infra.http import AddressRefused, ConnectionBroken, NoAnswer, SafeClient, StreamedAnswer
from service.llm.breaker import Breaker, BreakerPermit
from service.remote import a2a, post
from service.remote.task import AnswerBroken, RemoteAnswer, RemoteEvent, RemoteTask

MOST_SECONDS = 3_600.0  # of one exchange; the run's own deadline is nearer
CANCEL_SECONDS = 2.0
FAILURES, RECOVERY = 5, 15.0  # failures in a row after which a host is paused, and for how many seconds
MAX_WAITING = 256  # events that the run has not taken yet: then the remote agent waits
RETRY_SECONDS = 0.5  # before the one repetition of a request that was not answered
PAUSE_SECONDS = 2.0  # between two tries to reach an agent that is waited for


class RemoteHosts(NamedTuple):
    """Hosts of the operator, `name` or `name:port`: `private` may be on the own network, `bearers` are their tokens."""

    private: frozenset[str]
    bearers: Mapping[str, str]

    @classmethod
    def of(cls, hosts: str, credentials: str) -> RemoteHosts:
        """Parse the settings `REMOTE_HOSTS` and `REMOTE_CREDENTIALS`."""
        pairs = (pair.strip().partition("=") for pair in credentials.split(",") if pair.strip())
        return cls(
            frozenset(host.strip().lower() for host in hosts.split(",") if host.strip()),
            {host.strip().lower(): token.strip() for host, _, token in pairs},
        )

    def fault(self, url: str) -> str | None:
        """Return why an agent at this address is not asked; None: it is."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not self.is_own(url):
            return f"must use https, or REMOTE_HOSTS must name {parts.netloc}"
        return None

    def is_own(self, url: str) -> bool:
        parts = urlsplit(url)
        return bool({parts.netloc.lower(), (parts.hostname or "").lower()} & self.private)

    def bearer(self, url: str) -> dict[str, str]:
        """Return the header with the token for an address, if there is one."""
        parts = urlsplit(url)
        for host in (parts.netloc.lower(), (parts.hostname or "").lower()):
            if host in self.bearers:
                return {"Authorization": f"Bearer {self.bearers[host]}"}
        return {}


class RemoteClient:
    """Thread-safe; one per process."""

    def __init__(self, hosts: RemoteHosts) -> None:
        self.hosts = hosts
        self._public = SafeClient(allow_private=False, seconds=MOST_SECONDS)
        self._own = SafeClient(allow_private=True, seconds=MOST_SECONDS)
        self._breakers: dict[str, Breaker] = {}
        self._lock = threading.Lock()

    def ask(self, task: RemoteTask, protocol: str, seconds: float, silence: float) -> Exchange:
        """Begin to ask. `silence`: the longest wait for the next byte, in seconds."""
        return Exchange(self, task, protocol, seconds, silence)

    def transport(self, url: str) -> SafeClient:
        return self._own if self.hosts.is_own(url) else self._public

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
        self._silence = silence
        self._told: queue.Queue[RemoteEvent | RemoteAnswer | Exception] = queue.Queue(MAX_WAITING)
        self._closed = threading.Event()
        self._abort: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._work, name="remote-agent", daemon=True)
        self._thread.start()

    def events(self, pause: float) -> Iterator[RemoteEvent | RemoteAnswer | None]:
        """Yield events and last the answer; None after each `pause` seconds without any.

        Raises `RemoteFailed` and `RemoteUnavailable`.
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
        self._abort()
        if cancelled:
            with suppress(AddressRefused, NoAnswer):
                self._cancel()

    def _cancel(self) -> None:
        url, body = self._task.url.rstrip("/") + "/cancel", {"run_id": self._task.body["run_id"]}
        if self._protocol == "post":
            headers = {"Content-Type": "application/json", **self._client.hosts.bearer(url)}
            with self._client.transport(url).stream(
                "POST", url, headers, orjson.dumps(body), seconds=CANCEL_SECONDS
            ):
                pass

    def _work(self) -> None:
        try:
            for told in self._told_by_remote():
                self._put(told)
        except SlipwayError as error:
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
            begun, verdict = False, breaker.release
            try:
                for told in self._answer():
                    begun, verdict = True, breaker.record_success
                    yield told
                return
            except ConnectionBroken:
                verdict = breaker.record_failure
                raise AnswerBroken("The remote agent's answer broke off.") from None
            except (AddressRefused, NoAnswer) as error:
                verdict = breaker.record_failure
                if begun:
                    raise RemoteFailed("The remote agent's answer broke off.") from None
                if last or isinstance(error, AddressRefused) or self._closed.wait(RETRY_SECONDS):
                    raise RemoteUnavailable(f"The remote agent gave no answer. {error}") from None
            except RemoteUnavailable:
                verdict = breaker.record_failure
                if last or self._closed.wait(RETRY_SECONDS):
                    raise
            except RemoteFailed:
                verdict = breaker.record_success  # it is there
                raise
            finally:
                verdict(permit)

    def _answer(self) -> Iterator[RemoteEvent | RemoteAnswer]:
        task, client = self._task, self._client
        dialect = post if self._protocol == "post" else a2a
        headers = {**dialect.headers_of(task), **client.hosts.bearer(task.url)}
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise RemoteUnavailable("There was no time left to ask the remote agent.")
        with client.transport(task.url).stream(
            "POST", task.url, headers, dialect.body_of(task), seconds=seconds, silence=self._silence
        ) as answer:
            self._abort = answer.abort
            if self._closed.is_set():
                return
            _check_status(answer)
            yield from dialect.read(answer)


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
