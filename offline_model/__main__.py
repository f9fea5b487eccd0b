"""`python -m offline_model --port 8099`: start, print the address, serve until a signal."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

from offline_model.api import Api
from offline_model.faults import FAULTS, NO_FAULT
from offline_model.server import Server
from offline_model.settings import Settings, parse

PR_SET_PDEATHSIG = 1


def main(argv: list[str] | None = None) -> None:
    """Parse the settings, set up signals, serve."""
    settings = parse(argv)
    if settings.fault and settings.fault not in (*FAULTS, NO_FAULT):
        names = ", ".join(FAULTS)
        sys.exit(f"The offline model cannot start: there is no fault {settings.fault!r}, only {names}.")
    # No state to save: exit at once, also as pid 1, where the default action is to ignore.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    if settings.die_with_parent:
        die_with_parent(settings.parent_pid)
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        sys.exit(f"The offline model cannot start: {where} cannot be listened on: {error.strerror}.")


def die_with_parent(parent_pid: int | None) -> None:
    """Have Linux send SIGKILL when the parent ends; exit at once if it has ended already."""
    before = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != (parent_pid or before):
        os._exit(0)


async def serve(settings: Settings) -> None:
    """Listen, announce the port, and exit with the parent when its pid was given."""
    api = Api(settings)
    server = Server(api.handle)
    port = await server.start(settings.host, settings.port)
    announce(settings, port)
    while settings.parent_pid is None or os.getppid() == settings.parent_pid:
        await asyncio.sleep(0.5)


def announce(settings: Settings, port: int) -> None:
    """Print the address, and write the port file atomically."""
    print(f"offline model on http://{settings.host}:{port}", flush=True)
    if settings.port_file:
        scratch = f"{settings.port_file}.{os.getpid()}"
        with open(scratch, "w", encoding="ascii") as file:
            file.write(str(port))
        os.replace(scratch, settings.port_file)


if __name__ == "__main__":
    main()
