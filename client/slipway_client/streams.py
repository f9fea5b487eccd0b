"""Streams of events, as iterators that take up a broken connection by themselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import Self

from slipway_client.errors import SlipwayError
from slipway_client.events import Event, Transcript
from slipway_client.following import Place
from slipway_client.models import RunResult


class _Told:
    """Progress of a stream: its last id, and the text that stands."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._transcript = Transcript()
        self._result: RunResult | None = None

    @property
    def text(self) -> str:
        """Text so far, without pieces that are void because another worker began them again."""
        return str(self._transcript)

    @property
    def run_id(self) -> str:
        """Id of the run; "" before the first event."""
        return self._place.run_id

    @property
    def last_event_id(self) -> str:
        """Id of the last event, for `client.runs.events(run_id, after=…)`; "" before the first."""
        return f"{self._place.run_id}:{self._place.seq}" if self._place.run_id else ""

    def _note(self, event: Event) -> Event:
        self._transcript.add(event)
        self._result = event.result or self._result
        return event

    def _ended(self) -> RunResult:
        if self._result is None:
            raise SlipwayError("The stream was closed before the run's last event.")
        return self._result


class EventStream(_Told):
    """Iterator over the events of a run, each once and in order, to the last one. Close it, or use `with`."""

    def __init__(self, place: Place, events: Generator[Event, None, None]) -> None:
        super().__init__(place)
        self._events = events

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        return self._note(next(self._events))

    def result(self) -> RunResult:
        """Read on to the end and return the run's result, also that of a failed run: see `raise_for_error`."""
        for _ in self:
            pass
        return self._ended()

    def close(self) -> None:
        """Close the connection. The run goes on, unless it was started with `on_disconnect="cancel"`."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncEventStream(_Told):
    """Asynchronous iterator over the events of a run. Close it, or use `async with`."""

    def __init__(self, place: Place, events: AsyncGenerator[Event, None]) -> None:
        super().__init__(place)
        self._events = events

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return self._note(await anext(self._events))

    async def result(self) -> RunResult:
        """Read on to the end and return the run's result, also that of a failed run: see `raise_for_error`."""
        async for _ in self:
            pass
        return self._ended()

    async def close(self) -> None:
        """Close the connection. The run goes on, unless it was started with `on_disconnect="cancel"`."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
