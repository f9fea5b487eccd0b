"""WebSocket connection over the server's own socket: messages in, frames out, both within bounds."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from service.web.body import MAX_BODY, PUBLIC_BODY
from service.web.sockets.meter import Meter

READ = 65_536  # bytes at a time
STALLED_SECONDS = 30.0  # without a byte read by a client for whom bytes wait
CLOSING_SECONDS = 2.0  # for the client's part of the closing handshake
MAX_REASON = 120  # bytes; a control frame has 125
# A message of MAX_BODY may come in fragments of 1 KiB; the replies to as many pings are what a client may leave unread.
FRAMES, FRAMES_A_SECOND = 2_000, 100.0


class Closed(OSError):
    """Raised by writes to a connection that has ended, or is closing."""


class Connection:
    """Connection whose one thread receives, while others write.

    No write but `finish` blocks. Messages are limited to PUBLIC_BODY bytes until `widen`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._protocol = ServerProtocol(state=State.OPEN, max_size=PUBLIC_BODY)
        self._lock = threading.Lock()  # guards all below
        self._unsent = bytearray()
        self._parts: list[bytes] = []  # of a text message whose end is to come
        self._meter = Meter(FRAMES, FRAMES_A_SECOND)
        self._moved = time.monotonic()  # when bytes left, or began to wait
        self._closing_since: float | None = None
        self.heard = time.monotonic()  # when the last bytes came
        self.used = time.monotonic()  # when the last message went either way
        self.over = False

    @property
    def closing(self) -> bool:
        """Return whether a close frame was sent or received, or the connection has ended."""
        return self.over or self._protocol.state is not State.OPEN

    @property
    def code(self) -> int:
        """Return the code of the close frame that was sent, 1006 without any."""
        sent = self._protocol.close_sent
        return int(CloseCode.ABNORMAL_CLOSURE) if sent is None else int(sent.code)

    def widen(self) -> None:
        """Take messages of MAX_BODY bytes from now on."""
        self._protocol.max_message_size = MAX_BODY

    # --- writes, from any thread --------------------------------------------------------------------

    def send(self, messages: Sequence[bytes]) -> None:
        """Send text messages, as far as the client takes them at once. Raises `Closed`."""
        with self._lock:
            if self.closing:
                raise Closed
            for message in messages:
                self._protocol.send_text(message)
                self.used = time.monotonic()
            self._push()

    def rest(self) -> bool:
        """Send the remainder, without blocking. True: some still remains. Raises `Closed`."""
        with self._lock:
            if self.closing:
                raise Closed
            self._push()
            return bool(self._unsent)

    def finish(self) -> None:
        """Block until the client has taken everything. Raises `Closed`, also once the receiving thread gives it up."""
        while self.rest():
            self._wait(select.POLLOUT, 1.0)

    def ping(self) -> None:
        with self._lock, suppress(InvalidState):
            self._protocol.send_ping(b"")
            self._push()

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake, unless it has begun."""
        with self._lock:
            if not self.closing:
                shortened = reason.encode()[:MAX_REASON].decode(errors="ignore")
                self._protocol.send_close(code, shortened)
                self._push()

    def abort(self) -> None:
        """End the connection without more words."""
        self.over = True
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    # --- reads, from one thread ----------------------------------------------------------------------

    def receive(self, seconds: float) -> list[bytes]:
        """Wait for text messages. Empty after that time, and once the connection is closing.

        Ends a connection whose client does not read, answer, or close in time.
        """
        data = self._read(seconds)
        with self._lock:
            self._expire()
            if data is None or self.over:
                return []
            self.heard = time.monotonic()
            if not data:
                self._protocol.receive_eof()
                self.over = True
                return []
            self._protocol.receive_data(data)
            messages = self._messages(self._protocol.events_received())
            self._push()
            return messages

    def _read(self, seconds: float) -> bytes | None:
        """Read bytes: none at the end of the stream, None if nothing came."""
        if not self._wait(select.POLLIN, seconds):
            return None
        try:
            return self._sock.recv(READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _wait(self, event: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._sock, event)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def _expire(self) -> None:
        now = time.monotonic()
        if self._unsent and now > self._moved + STALLED_SECONDS:
            self.abort()
        elif self.closing:
            self._closing_since = self._closing_since or now
            if now > self._closing_since + CLOSING_SECONDS:
                self.over = True

    def _messages(self, frames: Sequence[object]) -> list[bytes]:
        """Join fragments. Closes the connection at a binary message, invalid UTF-8, or too many frames.

        What came before a close frame is still a message.
        """
        messages: list[bytes] = []
        for frame in frames:
            if not isinstance(frame, Frame):
                continue
            if not self._meter.passes():
                self._protocol.fail(CloseCode.POLICY_VIOLATION, "Too many frames.")
                break
            if frame.opcode is Opcode.BINARY:
                self._protocol.fail(CloseCode.UNSUPPORTED_DATA, "Send JSON as text.")
                break
            if frame.opcode in (Opcode.TEXT, Opcode.CONT):
                self._parts.append(bytes(frame.data))
                if frame.fin:
                    messages += self._joined()
        return messages

    def _joined(self) -> list[bytes]:
        whole, self._parts = b"".join(self._parts), []
        try:
            whole.decode()
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "Text must be UTF-8.")
            return []
        return [whole]

    def _push(self) -> None:
        """Send as many bytes as the socket takes at once; its lock is held."""
        if not self._unsent:
            self._moved = time.monotonic()
        for data in self._protocol.data_to_send():
            self._unsent += data
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent, socket.MSG_DONTWAIT)
                del self._unsent[:sent]
                self._moved = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:
            self.over = True
        if self._protocol.eof_sent and not self._unsent:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
