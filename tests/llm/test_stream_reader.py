"""Streams that one thread reads for all: over a real socket they come out as if each were read by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service import errors
from service.llm.claude import ClaudeClient
from service.llm.client import ModelCall
from service.llm.stream_reader import StreamReader, StreamSink, pause_of
from tests.exhausted import no_threads
from tests.llm.conftest import MakeClaude, Offline, a_call, ask
from tests.llm.wire_server import Exchange, WireServer, chunk, end, head, silent, sse, start, text_events


class Listener:
    """A call whose first piece comes from `create`, and the others by way of `hear`."""

    def __init__(self, claude: ClaudeClient, seconds: float = 20.0) -> None:
        claude._streams |= {a_call() for _ in range(20)}  # as many others are open
        self.claude, self.call = claude, a_call(seconds)
        self.heard: list[str] = []
        self.call.on_text = self.heard.append
        self.spoke = threading.Event()

    def __call__(self, exchange: Exchange, *then: Callable[[Exchange], None]) -> None:
        """The server's side: what comes first, and once it was heard what follows."""
        exchange.send(head(200, None, "content-type: text/event-stream\r\n"))
        exchange.send(together(start(), *text_events("one ")[:2]))
        assert self.spoke.wait(60)
        for work in then:
            work(exchange)

    def run(self) -> tuple[list[str], Any]:
        pieces, answering = list[str](), self.claude.create(ask(stream=True), self.call)
        while True:
            try:
                pieces.append(next(answering).text)
            except StopIteration as done:
                return pieces, done.value
            self.spoke.set()


def together(*events: dict[str, Any]) -> bytes:
    return b"".join(chunk(sse(event)) for event in events)


MORE = together(*text_events("one ", "two ", "three")[2:])
LAST = together(*end()) + b"0\r\n\r\n"


def test_deltas_received_together_are_one_piece(claude: ClaudeClient, server: WireServer) -> None:
    listener = Listener(claude)
    server.script = [lambda exchange: listener(exchange, lambda x: x.send(MORE), lambda x: x.send(LAST))]
    pieces, reply = listener.run()
    assert (pieces, "".join(listener.heard), reply.text) == (["one "], "two three", "one two three")
    assert listener.heard[0] == "two three"
    assert (reply.stop_reason, listener.call.progress.text) == ("end_turn", "one two three")


def test_the_connection_is_used_again(claude: ClaudeClient, server: WireServer) -> None:
    for _ in range(3):
        listener = Listener(claude)
        server.script = [lambda exchange, own=listener: own(exchange, lambda x: x.send(MORE + LAST))]
        listener.run()
    assert server.connections == 1


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (lambda x: x.send(MORE + chunk(b"data: {garbage\n\n")), errors.ModelError),
        (lambda x: x.send(MORE + b"zz\r\n"), errors.ModelInterrupted),
        (lambda x: (x.send(MORE), x.close()), errors.ModelInterrupted),
        (lambda x: x.send(MORE + b"0\r\n\r\n"), errors.ModelInterrupted),
    ],
)
def test_text_before_a_fault_is_delivered(
    claude: ClaudeClient, server: WireServer, bad: Callable[[Exchange], None], error: type[Exception]
) -> None:
    listener = Listener(claude)
    server.script = [lambda exchange: listener(exchange, bad)]
    with pytest.raises(error):
        listener.run()
    assert ("".join(listener.heard), listener.call.progress.text) == ("two three", "one two three")


def test_abort_ends_the_stream_and_closes_the_connection(claude: ClaudeClient, server: WireServer) -> None:
    listener = Listener(claude)
    server.script = [lambda exchange: listener(exchange, silent)]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(listener.run)
        assert listener.spoke.wait(60)
        listener.call.abort()
        assert isinstance(running.exception(10), errors.RunCancelled)
    assert server.hung_up.wait(30)


@pytest.mark.parametrize(("silence", "seconds"), [(0.3, 20.0), (10.0, 1.0)])
def test_a_model_that_falls_silent_is_not_waited_for(
    make_claude: MakeClaude, server: WireServer, silence: float, seconds: float
) -> None:
    """Longer than it may be silent, or than the call may take."""
    listener = Listener(make_claude(server.url, timeout=silence), seconds)
    server.script = [lambda exchange: listener(exchange, silent)]
    with pytest.raises(errors.ModelTimeout):
        listener.run()


def test_a_model_that_falls_silent_holds_no_other_up(make_claude: MakeClaude, server: WireServer) -> None:
    claude = make_claude(server.url, timeout=60.0)
    silenced, other = Listener(claude), Listener(claude)
    with ThreadPoolExecutor(2) as pool:
        server.script = [lambda exchange: silenced(exchange, silent)]
        running = pool.submit(silenced.run)
        assert silenced.spoke.wait(60)
        time.sleep(0.3)  # it is looked at by now
        server.script = [lambda exchange: other(exchange, lambda x: x.send(MORE), lambda x: x.send(LAST))]
        _, reply = pool.submit(other.run).result(30)  # less than a model may be silent
        assert reply.text == "one two three"
        silenced.call.abort()
        assert isinstance(running.exception(10), errors.RunCancelled)


def test_whose_last_word_is_said_is_whole_though_the_stream_does_not_end(
    make_claude: MakeClaude, server: WireServer
) -> None:
    listener = Listener(make_claude(server.url, timeout=0.3))
    ended = MORE + together(*end())
    server.script = [lambda exchange: listener(exchange, lambda x: x.send(ended), silent)]
    _, reply = listener.run()
    assert (reply.text, reply.stop_reason) == ("one two three", "end_turn")


def test_under_tls_too(
    make_claude: MakeClaude, tls_server: WireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a record that is larger than one read nothing is left behind."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    listener = Listener(make_claude(tls_server.url))
    words = [f"word {number} " for number in range(3_000)]
    more = together(*text_events("one ", *words)[2:])
    tls_server.script = [lambda exchange: listener(exchange, lambda x: x.send(more + LAST))]
    pieces, reply = listener.run()
    assert "".join([*pieces, *listener.heard]) == reply.text == "one " + "".join(words)


def test_failing_sink_ends_its_own_stream_only(claude: ClaudeClient, server: WireServer) -> None:
    failing, other = Listener(claude), Listener(claude)

    def refuse(_: str) -> None:
        raise errors.DatabaseUnavailable()

    failing.call.on_text = refuse
    server.script = [
        lambda exchange: failing(exchange, lambda x: x.send(MORE)),
        lambda exchange: other(exchange, lambda x: x.send(MORE + LAST)),
    ]
    with pytest.raises(errors.DatabaseUnavailable):
        failing.run()
    assert other.run()[1].text == "one two three"


def test_many_at_once_come_out_whole(make_claude: MakeClaude, offline: Offline) -> None:
    offline.control(token_ms=3)
    claude = make_claude(offline.url)

    def one(number: int) -> tuple[str, str]:
        call, told = a_call(60), list[str]()
        call.on_text = told.append
        answering = claude.create(ask(f"[offline tokens=80] Question {number}", stream=True), call)
        while True:
            try:
                told.append(next(answering).text)
            except StopIteration as done:
                return "".join(told), done.value.text

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(one, range(80)))
    assert all(told == text and len(text) > 100 for told, text in answers)
    assert claude._stream_reader._thread is not None and not claude._stream_reader._all


class Never:
    """Nothing comes of it."""

    complete = False

    def arrived(self) -> bytes:
        return b""


class Always(Never):
    """Send without a pause."""

    def arrived(self) -> bytes:
        return b"more"


def test_a_model_that_never_falls_silent_is_cut_off_at_the_calls_end() -> None:
    heard: list[bytes] = []
    stream = StreamSink(Always(), ModelCall(0.0), 10.0, heard.append)
    assert stream.look()
    assert isinstance(stream.error, httpx2.ReadTimeout)
    assert heard == [b"more"]


def test_stuck_reader_is_a_read_timeout() -> None:
    class Stuck(StreamReader):
        def _loop(self) -> None:
            pass

    call = ModelCall(0.0)
    with pytest.raises(httpx2.ReadTimeout):
        Stuck().read(StreamSink(Never(), call, 10.0, lambda _: None))


def test_thread_that_could_not_start_starts_later() -> None:
    reader = StreamReader()
    with no_threads(), pytest.raises(RuntimeError):
        reader.read(StreamSink(Never(), ModelCall(0.0), 10.0, lambda _: False))
    assert reader._all == set()
    heard: list[bytes] = []

    def take(data: bytes) -> bool:
        heard.append(data)
        return True

    reader.read(StreamSink(Always(), ModelCall(time.monotonic() + 60), 60.0, take))
    assert heard == [b"more"]


@pytest.mark.parametrize(
    ("streams", "took", "pause"),
    [
        (1, 0.0, 0.02),
        (58, 0.001, 0.05),
        (500, 0.005, 0.1),
        (500, 0.02, 0.16),
        (9, 0.02, 0.16),  # few streams in a process that is busy otherwise
        (500, 1.0, 0.2),
    ],
)
def test_the_more_there_is_to_do_the_more_is_gathered(streams: int, took: float, pause: float) -> None:
    assert pause_of(streams, [took]) == pytest.approx(pause)


def test_one_look_that_took_long_changes_nothing() -> None:
    assert pause_of(100, [0.002, 0.02, 0.002]) == pause_of(100, [0.002])
