"""MCP server without an SDK, for faults that no SDK makes: `python raw_server.py FOLDER [PORT]`, over stdio or HTTP.

Each tool misbehaves in its own way; `FOLDER/mode` names the fault of a method that is not a call, `FOLDER/calls` gets a
line for each call, `FOLDER/told` one for each answer of the client. Speaks the handshake of 2025-06-18.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else ".")  # tests import it too
HUGE = 100_000_000  # characters
REQUESTS = 1_000  # of the server to the client
ASKED = ("sampling/createMessage", "elicitation/create", "roots/list", "ping")
NOTE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
BOTH = (
    *("echo", "slow", "slow_pay", "pay", "hang", "huge", "notes"),
    *("requests", "twice", "other_id", "foreign", "junk", "lost"),
)
HTTP = (
    *("s401", "s404", "s500", "s502", "drop", "cut", "text", "accepted"),
    *("sse_end", "comments", "retry", "redirect", "bomb", "cookie"),
)
STDIO = ("noise", "blank", "endless")
TOOLS = (*BOTH, *HTTP, *STDIO)
SCHEMA = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 10}}, "required": ["text"]}
LOCK = threading.Lock()


def mode(method: str) -> str:
    """Return the fault of a method, as `FOLDER/mode` has it now."""
    file = FOLDER / "mode"
    return json.loads(file.read_text()).get(method, "") if file.exists() else ""


def note(file: str, line: str) -> None:
    with LOCK, (FOLDER / file).open("a") as opened:
        opened.write(line + "\n")


def text_of(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}


def answer(request_id: Any, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def error(request_id: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


def listed(fault: str) -> dict[str, Any]:
    tools = [{"name": name, "description": f"Does {name}.", "inputSchema": SCHEMA} for name in TOOLS]
    if fault == "million":
        return {"tools": [{"name": f"tool{n}", "inputSchema": {"type": "object"}} for n in range(1_000_000)]}
    if fault == "pages":  # each with more to come, for ever
        extra = [{"name": f"tool{n}", "inputSchema": {"type": "object"}} for n in range(1_000)]
        return {"tools": extra, "nextCursor": "more"}
    return {"tools": tools}


def plain(message: dict[str, Any]) -> dict[str, Any] | None:
    """Answer what is no call; None: no answer, whatever the reason."""
    method, request_id = message.get("method", ""), message.get("id")
    if not method:
        note("told", json.dumps(message.get("error") or message.get("result")))
        return None
    fault = mode(method)
    if request_id is None:
        return None
    if fault == "hang":  # over HTTP its request is held open
        return None
    if fault == "error":
        return error(request_id, -32000, "not today")
    if method == "initialize":
        server = {"name": "raw", "version": "1"}
        return answer(
            request_id, {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": server}
        )
    if method == "tools/list":
        return answer(request_id, listed(fault))
    return error(request_id, -32601, "there is no such method")


def result_for(tool: str, message: dict[str, Any]) -> dict[str, Any] | None:
    """Answer a call that is answered as a whole; None: the way it goes wrong is that of a transport."""
    request_id, said = message["id"], message["params"].get("arguments", {}).get("text", "")
    if tool == "hang":
        time.sleep(3600)
    if tool.startswith("slow"):
        (FOLDER / "slow").touch()
        while not (FOLDER / "go").exists():
            time.sleep(0.02)
    if tool == "lost":
        return answer(request_id, {"content": [{"type": "text"}]})
    if tool == "foreign":
        return answer(request_id + 1_000, text_of(said))
    return answer(request_id, text_of(said)) if tool in ("echo", "pay", "slow", "slow_pay") else None


class Stdio:
    """Server over stdin and stdout, each call in its own thread."""

    def serve(self) -> None:
        (FOLDER / "pid").write_text(str(os.getpid()))
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if message.get("method") == "tools/call":
                threading.Thread(target=self.call, args=(message,), daemon=True).start()
            elif told := plain(message):
                self.write(told)

    def write(self, message: dict[str, Any]) -> None:
        self.raw(json.dumps(message).encode() + b"\n")

    def raw(self, data: bytes) -> None:
        with LOCK:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def call(self, message: dict[str, Any]) -> None:
        tool, request_id = message["params"]["name"], message["id"]
        note("calls", tool)
        if told := result_for(tool, message):
            return self.write(told)
        if tool == "huge":
            self.write(answer(request_id, text_of("h" * HUGE)))
        if tool == "twice":
            self.write(answer(request_id, text_of("first")))
            self.write(answer(request_id, text_of("second")))
        if tool == "other_id":
            self.write(answer(request_id + 1_000, text_of("not yours")))
            self.write(answer(str(request_id), text_of("yours")))
        if tool == "junk":
            self.raw(b"null\n[]\n{}\n\xff\xfe\n" + b"[" * 100_000 + b'\n{"jsonrpc": "2.0", "id": 1e999}\n')
            self.write(answer(request_id, text_of("yours")))
        if tool == "requests":
            for number in range(REQUESTS):
                self.write({"jsonrpc": "2.0", "id": f"s{number}", "method": ASKED[number % 4], "params": {}})
            self.write(answer(request_id, text_of("asked")))
        floods = {
            "notes": json.dumps(NOTE).encode() + b"\n",
            "blank": b"\n" * 1_000,
            "endless": b"x" * 65_536,
        }
        while tool in floods:
            self.raw(floods[tool])
        while tool == "noise":
            os.write(2, b"noise\n" * 1_000)


class Http(BaseHTTPRequestHandler):
    """Server of one request; `protocol_version` keeps connections open."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        note("gets", f"GET {self.headers.get('last-event-id')}")
        if self.headers.get("last-event-id") is None:
            return self.send(405, "text/plain", b"")
        self.events(b"id: again\nretry: 0\n\n")

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method = message.get("method", "")
        if mode("http") and method != "initialize":
            return self.send(int(mode("http")), "text/plain", b"")
        if method == "tools/call":
            return self.call(message)
        if mode(method) == "hang":
            time.sleep(3600)
        told = plain(message)
        self.send(
            202 if told is None else 200, "application/json", json.dumps(told).encode() if told else b""
        )

    def send(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def events(self, data: bytes, end: bool = True) -> None:
        """Begin a stream of events, or end it with these."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
        self.close_connection = end

    def event(self, message: dict[str, Any]) -> None:
        self.wfile.write(b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n")
        self.wfile.flush()

    def call(self, message: dict[str, Any]) -> None:
        tool, request_id = message["params"]["name"], message["id"]
        note("calls", tool)
        if told := result_for(tool, message):
            return self.send(200, "application/json", json.dumps(told).encode())
        whole = json.dumps(answer(request_id, text_of("yours"))).encode()
        if tool[0] == "s" and tool[1:].isdecimal():
            return self.send(int(tool[1:]), "text/plain", b"secret of a proxy")
        if tool == "redirect":
            return self.send(307, "text/plain", b"", Location="/elsewhere")
        if tool in ("text", "accepted"):
            return self.send(202 if tool == "accepted" else 200, "text/plain", b"hello")
        if tool in ("drop", "cut"):
            self.close_connection = True
            if tool == "cut":
                self.wfile.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
                )
            return None
        if tool in ("huge", "junk"):
            huge = json.dumps(answer(request_id, text_of("h" * HUGE))).encode()
            return self.send(200, "application/json", huge if tool == "huge" else b"[" * 100_000)
        if tool in ("bomb", "cookie"):
            return self.with_header(tool, request_id)
        return self.streamed(tool, request_id, whole)

    def with_header(self, tool: str, request_id: Any) -> None:
        if tool == "bomb":
            body = gzip.compress(json.dumps(answer(request_id, text_of("h" * (HUGE // 5)))).encode())
            return self.send(200, "application/json", body, **{"Content-Encoding": "gzip"})
        body = json.dumps(answer(request_id, text_of(str(self.headers.get("cookie"))))).encode()
        return self.send(200, "application/json", body, **{"Set-Cookie": "a=b; Path=/"})

    def streamed(self, tool: str, request_id: Any, whole: bytes) -> None:
        self.events(b"id: first\nretry: 0\n\n" if tool == "retry" else b": hello\n\n")
        if tool == "twice":
            self.event(answer(request_id, text_of("first")))
            self.event(answer(request_id, text_of("second")))
        if tool == "other_id":
            self.event(answer(request_id + 1_000, text_of("not yours")))
            self.wfile.write(b"event: message\ndata: " + whole + b"\n\n")
        if tool == "requests":
            for number in range(REQUESTS):
                self.event({"jsonrpc": "2.0", "id": f"s{number}", "method": ASKED[number % 4], "params": {}})
            self.event(answer(request_id, text_of("asked")))
        while tool == "notes":
            self.event(NOTE)
        while tool == "comments":
            self.wfile.write(b": x\n" * 10_000)


def main() -> None:
    if len(sys.argv) > 2:
        server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Http)
        server.daemon_threads = True
        (FOLDER / "pid").write_text(str(os.getpid()))
        server.serve_forever()
    Stdio().serve()
    return None


if __name__ == "__main__":
    main()
