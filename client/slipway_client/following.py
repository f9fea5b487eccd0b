"""Following of a run: its events from one connection after the other, each once and in order."""

from __future__ import annotations

import random
from dataclasses import dataclass

from slipway_client.calls import Call, get, nothing, path_of
from slipway_client.effects import Close, Items, Out, Read, Sleep
from slipway_client.errors import APIError, ConnectionFailed
from slipway_client.events import Event, event_of
from slipway_client.exchange import Exchange, worth_a_retry
from slipway_client.retry import LONGEST_RETRY_AFTER, RECONNECTS, reconnect_pause
from slipway_client.sse import Parser


@dataclass(slots=True)
class Place:
    """Place in a run's events: the call that starts them, and the last event that was told."""

    start: Call[None]
    run_id: str = ""
    seq: int = 0
    done: bool = False
    quiet: int = 0  # connections in a row that brought no event
    lost: int = 0  # of these, those that the server did not end by itself

    def call(self) -> Call[None]:
        """Return the call for the events after the last one.

        Before the first event, that is the same request with the same `Idempotency-Key`.
        """
        if not self.run_id:
            return self.start
        return get(path_of("runs", self.run_id, "events"), nothing).with_headers(
            Last_Event_ID=f"{self.run_id}:{self.seq}"
        )

    def take(self, event: Event) -> bool:
        """Note an event; False for one that was told before."""
        if event.seq <= self.seq:
            return False
        self.run_id, self.seq, self.done = event.run_id, event.seq, event.is_last
        self.quiet = self.lost = 0
        return True


def follow(exchange: Exchange, place: Place) -> Items[Event]:
    """Yield events until the last one, across reconnects.

    Raises what refuses the stream: at its start after the retries of any call, later after `RECONNECTS` tries in a row.
    """
    while True:
        retry_after = None
        try:
            yield from _connection(exchange, place)
        except (ConnectionFailed, APIError) as failed:
            tries = RECONNECTS if place.run_id else exchange.retry.retries
            retry_after = failed.retry_after if isinstance(failed, APIError) else None
            too_long = not place.run_id and (retry_after or 0) > LONGEST_RETRY_AFTER
            if not worth_a_retry(failed) or place.lost >= tries or too_long:
                raise
            place.lost += 1
        yield Close()
        if place.done:
            return
        yield Sleep(reconnect_pause(place.quiet, retry_after, random.random()))
        place.quiet += 1


def _connection(exchange: Exchange, place: Place) -> Items[Event]:
    """Yield the new events of one connection. Raises `ConnectionFailed` where it ends without `reconnect`."""
    yield from exchange.opened(place.call())
    parser = Parser()
    while (chunk := (yield Read())) is not None:
        for message in parser.feed(chunk):
            if message.event == "reconnect":
                place.lost = 0  # the run waits, or this server stops: no failure
                return
            event = event_of(message)
            if place.take(event):
                yield Out(event)
            if place.done:
                return
    raise ConnectionFailed("The stream ended before the run's last event.")
