"""Real nginx with the project's files, moved to loopback, and scripted replicas."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Self

import httpx2
import yaml

from tests.conftest import free_port, guardian, wait_until

ROOT = Path(__file__).resolve().parents[2]
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def group_of(upstreams: Sequence[int]) -> str:
    """Render the upstream group of `tls.conf` with these loopback ports."""
    tls = (ROOT / "nginx" / "sites" / "tls.conf").read_text()
    found = re.search(r"(?ms)^upstream slipway \{.*?^\}\n", tls)
    assert found
    head, *_ = re.split(r"(?m)^    server ", found[0])
    servers = "".join(f"    server 127.0.0.1:{port} max_fails=0;\n" for port in upstreams)
    return f"{head}{servers}}}\n"


def resolver(folder: Path, address: str) -> str:
    """Run the Compose file's own command over a `resolv.conf` with this name server."""
    (folder / "resolv.conf").write_text(
        f"search internal.example\nnameserver {address}\nnameserver 192.0.2.1\n"
    )
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    shell, option, script = compose["services"]["nginx"]["command"]
    script = script.replace("$$", "$").replace("/etc/resolv.conf", f"{folder}/resolv.conf")
    script = script.replace("> /run/", f"> {folder}/")
    script = script.replace("exec nginx -g 'daemon off;'", "")
    subprocess.run([shell, option, script], check=True, timeout=10)
    return (folder / "resolver.conf").read_text()


def lay_out(folder: Path, port: int, upstreams: Sequence[int], names: int | None = None) -> None:
    """Copy the project's nginx files into a folder, with the Compose site's addresses moved to loopback.

    With `names`, the port of a name server, the replicas are looked up there as in Compose, and all have the first of
    the ports. Without, they are the group of `tls.conf`: so each may have a port of its own.
    """
    shutil.copytree(ROOT / "nginx" / "slipway", folder / "slipway")
    server = folder / "slipway" / "server.conf"
    server.write_text(server.read_text().replace("/run/slipway.maintenance", f"{folder}/maintenance"))
    shutil.copy(ROOT / "nginx" / "nginx.conf", folder)
    text = (ROOT / "nginx" / "sites" / "compose.conf").read_text()
    if names is None:
        moved = {"include /run/resolver.conf;": group_of(upstreams), "slipway:8000": "slipway"}
    else:
        line = resolver(folder, "127.0.0.53").replace("127.0.0.53", f"127.0.0.1:{names}")
        moved = {"include /run/resolver.conf;": line, "slipway:8000": f"slipway:{upstreams[0]}"}
    moved |= {"listen 8080": f"listen 127.0.0.1:{port}", "/dev/stdout": f"{folder}/access.log"}
    for ours, theirs in moved.items():
        assert ours in text
        text = text.replace(ours, theirs)
    (folder / "site.conf").write_text(scratch_paths(folder) + text)


def scratch_paths(folder: Path) -> str:
    """Set nginx's temporary paths: the built-in ones belong to the machine."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"{kind}_temp_path {folder}/temp_{kind};\n" for kind in kinds)


class Edge:
    """Real nginx over the given replica ports. `change` edits the copied files before the start."""

    def __init__(
        self,
        folder: Path,
        upstreams: Sequence[int],
        change: Callable[[Path], None] | None = None,
        names: int | None = None,
    ) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        lay_out(folder, self.port, upstreams, names)
        if change:
            change(folder)

    def command(self, *more: str) -> list[str]:
        assert NGINX
        owner = "user root; " if os.geteuid() == 0 else ""  # workers may enter the test's own folder
        options = f"{owner}pid {self.folder}/nginx.pid; daemon off;"
        where = ["-p", f"{self.folder}/", "-c", f"{self.folder}/nginx.conf", "-e", "stderr"]
        return [NGINX, *where, "-g", options, *more]

    def check(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command("-t"), check=False, capture_output=True, text=True, timeout=20)

    def __enter__(self) -> Self:
        self.http = httpx2.Client(base_url=self.url, timeout=30, trust_env=False)
        with (self.folder / "error.log").open("w") as errors:
            self.process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=errors)
        guardian.list(self.process.pid)
        try:
            wait_until(lambda: listening(self.port) or self.process.poll() is not None, "nginx")
            assert self.process.poll() is None, (self.folder / "error.log").read_text()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(20)
        guardian.unlist(self.process.pid)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]


Script = Callable[[BaseHTTPRequestHandler], None]


class Replica:
    """Scripted replica: records requests, and answers by `script` (default 200 and an echo)."""

    def __init__(
        self,
        script: Script | None = None,
        protocol: str = "HTTP/1.1",
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.script = script
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = protocol

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                replica.seen.append((self.command, self.path, headers))
                (replica.script or echo)(self)
                self.close_connection = True

            do_GET = do_POST = do_DELETE = answer  # http.server's names

            def log_message(self, *_: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def server_bind(self) -> None:
                TCPServer.server_bind(self)  # HTTPServer's looks its own name up, which may take seconds

        self.server = Server(address, Handler)
        self.port = int(self.server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def say(status: int, body: object, **headers: str) -> Script:
    """Create a script with a fixed answer. Underscores in header names become hyphens."""

    def script(handler: BaseHTTPRequestHandler) -> None:
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header(
            "Content-Type", "application/problem+json" if status >= 400 else "application/json"
        )
        handler.send_header("Content-Length", str(len(data)))
        handler.send_header(
            "Connection", "close"
        )  # as Gunicorn answers a request that says so; nginx 1.29.7 keeps others
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return script


def echo(handler: BaseHTTPRequestHandler) -> None:
    say(200, {"path": handler.path, "headers": {k.lower(): v for k, v in handler.headers.items()}})(handler)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """End as a killed worker does: the request was read, and no byte of an answer comes."""
    handler.connection.shutdown(socket.SHUT_RDWR)


class Gate:
    """Stream two events; the last is sent once `opened` is set."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(b"data: first\n\n")
        self.opened.wait(20)
        handler.wfile.write(b"data: last\n\n")
