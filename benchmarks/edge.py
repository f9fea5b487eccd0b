"""The project's own nginx, with its files moved to loopback, in front of any replicas."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import ROOT, Failed, await_true, free_port, listens, process, program

GROUP = re.compile(r"upstream slipway \{.*?\n\}\n", re.DOTALL)
REPLICA = re.compile(r"^ *server 127\.0\.0\.1:\d+(.*;)\n", re.MULTILINE)


@contextmanager
def nginx(folder: Path, replicas: Sequence[int]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Start nginx before these ports: its own port, and its process."""
    binary = program("nginx")
    if binary is None:
        raise Failed("nginx is not installed (Debian: apt install nginx-light)")
    shutil.rmtree(folder, ignore_errors=True)
    port = free_port()
    lay_out(folder, port, replicas)
    owner = "user root; " if os.geteuid() == 0 else ""  # its workers may then enter the folder
    where = ["-p", f"{folder}/", "-c", f"{folder}/nginx.conf", "-e", "stderr"]
    options = ["-g", f"{owner}pid {folder}/nginx.pid; daemon off;"]
    log = folder / "error.log"
    with process([binary, *where, *options], log) as child:
        await_true(lambda: listens(port), child, "nginx", log)
        yield port, child


def lay_out(site: Path, port: int, replicas: Sequence[int]) -> None:
    """The site of docker-compose.yml with the group of replicas of tls.conf, and files of its own."""
    shutil.copytree(ROOT / "nginx" / "slipway", site / "slipway")
    shutil.copy(ROOT / "nginx" / "nginx.conf", site)
    text = (ROOT / "nginx" / "sites" / "compose.conf").read_text()
    moved = {
        "include /run/resolver.conf;": "",  # an address needs no name server
        "slipway:8000": "slipway",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "/dev/stdout": f"{site}/access.log",
    }
    for ours, theirs in moved.items():
        if ours not in text:
            raise Failed(f"nginx/sites/compose.conf has no {ours!r} any more")
        text = text.replace(ours, theirs)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    scratch = "".join(f"{kind}_temp_path {site}/temp_{kind};\n" for kind in kinds)
    (site / "site.conf").write_text(scratch + _group(replicas) + text)


def _group(replicas: Sequence[int]) -> str:
    found = GROUP.search((ROOT / "nginx" / "sites" / "tls.conf").read_text())
    options = REPLICA.search(found[0]) if found else None
    if not found or not options:
        raise Failed("nginx/sites/tls.conf has no group of replicas any more")
    lines = "".join(f"    server 127.0.0.1:{port}{options[1]}\n" for port in replicas)
    return REPLICA.sub("", found[0]).replace("{\n", "{\n" + lines, 1)
