"""The way of a run's events to the one who listens here, over a real Redis."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

import pytest

from service.cache import SpeedStore
from service.runs import live
from service.runs.live import Channel, ChannelOverflow, LiveReader, Publisher
from service.types import Event, RunEvent, new_id
from tests.conftest import RedisServer, wait_until


@pytest.fixture
def speed(redis_server: RedisServer) -> SpeedStore:
    return SpeedStore(redis_server.url, max_connections=4)


@pytest.fixture
def channel(speed: SpeedStore) -> Channel:
    return Publisher(speed).open(new_id("run"))


def delta(number: int) -> RunEvent:
    return RunEvent(Event.TEXT_DELTA, {"text": str(number)}, number)


def read(channel: Channel) -> list[int]:
    """Numbers of all events until the channel is done."""
    found: list[int] = []
    while not channel.done:
        found += [event.seq for event in channel.get(5.0)]
    return found


def test_all_arrive_in_order_and_none_after_the_end(channel: Channel, speed: SpeedStore) -> None:
    for number in range(1, 501):
        channel.put([delta(number)])
    channel.close()
    assert read(channel) == list(range(1, 501))
    assert channel.get(5.0) == []
    told = LiveReader(speed, speed.client).told(channel.run_id, 0)
    assert told is not None and [event.seq for event in told] == list(range(1, 501))


def test_many_channels_of_one_publisher_keep_apart(speed: SpeedStore) -> None:
    publisher = Publisher(speed)
    channels = [publisher.open(new_id("run")) for _ in range(20)]
    for number in range(1, 51):
        for channel in channels:
            channel.put([delta(number)])
    for channel in channels:
        channel.close()
    assert all(read(channel) == list(range(1, 51)) for channel in channels)


def test_what_is_not_urgent_waits_for_its_window(speed: SpeedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first event, the first word and the last do not wait, and take nobody else's along."""
    monkeypatch.setattr(live, "WINDOW", 600.0)
    publisher = Publisher(speed)
    slow, quick = publisher.open(new_id("run")), publisher.open(new_id("run"))
    slow.put([delta(1)])
    assert [event.seq for event in slow.get(5.0)] == [1]
    slow.put([delta(2)])
    quick.put([delta(1)])
    assert [event.seq for event in quick.get(5.0)] == [1]
    assert slow.get(0.05) == []
    slow.put([RunEvent(Event.RUN_COMPLETED, {}, 3)])
    assert [event.seq for event in slow.get(5.0)] == [2, 3]


def test_what_is_urgent_wakes_no_other_thread(speed: SpeedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Publisher, "_loop", lambda self: None)
    channel = Publisher(speed).open(new_id("run"))
    channel.put([RunEvent(Event.RUN_STARTED, {}, 1)])
    assert [event.seq for event in channel.get(5.0)] == [1]
    channel.put([RunEvent(Event.STEP_STARTED, {}, 2)])
    assert channel.get(0.05) == []
    channel.put([delta(3)])
    assert [event.seq for event in channel.get(5.0)] == [2, 3]
    channel.put([RunEvent(Event.RUN_COMPLETED, {}, 4)])
    channel.close()
    assert read(channel) == [4]


def test_urgent_or_not_all_keep_their_order(speed: SpeedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here and in the live stream, whoever brings them there."""
    monkeypatch.setattr(live, "WINDOW", 0.001)
    chance, publish = random.Random(7), Publisher._publish

    def dawdle(self: Publisher, batch: list[live.Batch]) -> None:
        time.sleep(chance.random() / 500)
        publish(self, batch)

    monkeypatch.setattr(Publisher, "_publish", dawdle)
    publisher = Publisher(speed)
    channels = [publisher.open(new_id("run")) for _ in range(8)]
    names = [
        [chance.choice((Event.TEXT_DELTA, Event.APPROVAL_REQUIRED)) for _ in range(100)] for _ in channels
    ]

    def tell(channel: Channel, names: list[Event]) -> None:
        for number, name in enumerate(names, 1):
            channel.put([RunEvent(name, {"text": "x"}, number)])
            time.sleep(chance.random() / 500)
        channel.close()

    threads = [threading.Thread(target=tell, args=pair) for pair in zip(channels, names, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for channel in channels:
        told = LiveReader(speed, speed.client).told(channel.run_id, 0)
        assert told is not None and [event.seq for event in told] == list(range(1, 101))
        assert read(channel) == list(range(1, 101))


def test_a_reader_that_is_too_slow_is_told(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_UNREAD", 10)
    for number in range(1, 30):
        channel.put([delta(number)])
    channel.close()
    wait_until(lambda: channel._overflow, "the overflow", timeout=5)
    with pytest.raises(ChannelOverflow):
        channel.get(5.0)


def test_what_kept_a_run_from_beginning_reaches_its_reader(channel: Channel) -> None:
    channel.fail(ZeroDivisionError())
    channel.close()
    with pytest.raises(ZeroDivisionError):
        channel.get(5.0)


def test_a_stream_has_its_life_from_the_first_entry_on(channel: Channel, speed: SpeedStore) -> None:
    for number in range(1, 4):
        channel.put([delta(number)])
        assert channel.get(5.0)
    assert live.LIFE * 3 / 4 < speed.client.ttl(live.stream_key(channel.run_id)) <= live.LIFE


class Client:
    """A `Writer` that takes what it is told to take."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)  # "whole", "part" or "nothing", then whole
        self.taken: list[int] = []
        self.unfinished = False

    def write(self, events: Sequence[RunEvent]) -> bool:
        answer = self.answers.pop(0) if self.answers else "whole"
        if answer == "nothing":
            return False
        self.taken += [event.seq for event in events]
        self.unfinished = answer == "part"
        return True


def reader_of(channel: Channel, found: list[int]) -> threading.Thread:
    """A thread that reads all there is, and waits for more."""

    def work() -> None:
        while not channel.done:
            events = channel.get(20.0)
            if isinstance(channel.writer, Client):
                channel.writer.unfinished = False
            found.extend(event.seq for event in events)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_where_the_reader_waits_the_publisher_writes_in_its_place(channel: Channel) -> None:
    """All but the last event, which the reader has to know of."""
    client, found = Client(), list[int]()
    channel.writer = client
    reader = reader_of(channel, found)
    for number in range(1, 6):
        wait_until(lambda: channel._idle, "the reader")
        channel.put([delta(number)])
        wait_until(lambda: client.taken[-1:] == [number], "the event")  # noqa: B023
    assert (found, channel.written) == ([], 5)
    channel.put([RunEvent(Event.RUN_COMPLETED, {}, 6)])
    channel.close()
    reader.join(10)
    assert (client.taken, found) == ([1, 2, 3, 4, 5], [6])


@pytest.mark.parametrize(("answer", "taken"), [("part", [1]), ("nothing", [])])
def test_what_a_client_does_not_take_its_reader_goes_on_with(
    channel: Channel, answer: str, taken: list[int]
) -> None:
    """A part that was taken wakes the reader too: it has to write the rest before anything else."""
    client, found = Client(answer), list[int]()
    channel.writer = client
    reader = reader_of(channel, found)
    wait_until(lambda: channel._idle, "the reader")
    channel.put([delta(1)])
    wait_until(lambda: client.taken == taken and found == [1][len(taken) :], "the first event")
    wait_until(lambda: not client.unfinished and channel._idle, "the reader")
    channel.put([delta(2)])
    wait_until(lambda: client.taken == [*taken, 2], "the publisher, which writes again")
    channel.close()
    reader.join(10)
    assert sorted([*client.taken, *found]) == [1, 2]


def test_nobody_writes_while_the_reader_does(channel: Channel) -> None:
    channel.writer = client = Client()
    channel.put([delta(1)])
    wait_until(lambda: not channel._out.empty(), "the event")
    assert [event.seq for event in channel.get(5.0)] == [1]
    channel.put([delta(2)])  # the reader writes the first one still
    wait_until(lambda: not channel._out.empty(), "the event")
    assert client.taken == []
