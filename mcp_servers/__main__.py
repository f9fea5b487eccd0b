"""`python -m mcp_servers`: serve mail and calendar, each on a port of its own; `python -m mcp_servers mail`: one."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from mcp_servers import appointments, mail
from mcp_servers.server import app

SERVERS = {"mail": (mail.tools, 9201), "calendar": (appointments.tools, 9202)}
AT_ONCE = 64  # connections of a server, idle ones too; further ones are answered with 503
STOP_SECONDS = 3  # for calls under way


class _Server(uvicorn.Server):
    """Server that leaves signals to this program, which may run two of them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; exit with a message if a port or the folder cannot be used."""
    options = _options(argv)
    names = options.servers or list(SERVERS)
    sockets = {name: _listen(name, options.host, getattr(options, f"{name}_port")) for name in names}
    try:
        servers = [_server(name, options.home / "mcp") for name in names]
    except (OSError, sqlite3.Error) as error:
        sys.exit(f"The stores in {options.home}/mcp cannot be used: {error}.")
    for name, listening in sockets.items():
        print(f"{name} on http://{options.host}:{listening.getsockname()[1]}/mcp", flush=True)
    asyncio.run(_serve(servers, sockets))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mcp_servers", description=__doc__)
    parser.add_argument("servers", nargs="*", type=_name, metavar="mail|calendar")
    parser.add_argument("--host", default="127.0.0.1")
    for name, (_, port) in SERVERS.items():
        given = os.environ.get(f"{name.upper()}_PORT") or str(port)
        parser.add_argument(f"--{name}-port", type=_port, default=given, help="0 picks a free one")
    home = os.environ.get("SLIPWAY_HOME") or "var"
    parser.add_argument("--home", type=Path, default=home, help="folder of the stores, SLIPWAY_HOME")
    return parser.parse_args(argv)


def _name(text: str) -> str:
    if text not in SERVERS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(SERVERS)}")
    return text


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError("must be a whole number from 0 to 65535")
    return int(text)


def _listen(name: str, host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With its protocol, which `create_server` leaves out: asyncio then sends answers without a delay.
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(AT_ONCE)
        return listening
    except OSError as error:
        sys.exit(f"The {name} server cannot start: {host}:{port} cannot be listened on: {error.strerror}.")


def _server(name: str, folder: Path) -> _Server:
    make, _ = SERVERS[name]
    config = uvicorn.Config(
        app(name, make(folder)),
        access_log=False,
        log_level="error",
        limit_concurrency=AT_ONCE,
        timeout_graceful_shutdown=STOP_SECONDS,
        ws="none",
        server_header=False,
    )
    return _Server(config)


async def _serve(servers: Sequence[_Server], sockets: Mapping[str, socket.socket]) -> None:
    def stop() -> None:
        for server in servers:
            server.should_exit = True

    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop)
    await asyncio.gather(
        *(server.serve([listening]) for server, listening in zip(servers, sockets.values(), strict=True))
    )


if __name__ == "__main__":
    main()
