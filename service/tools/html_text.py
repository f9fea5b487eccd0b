"""Readable text of an HTML page, made in a process of its own: `python -I html_text.py URL < page`.

A hostile page can keep any HTML parser busy, and parsers are written in C. The child has no environment, no
privileges of the service's own memory, and limits of processor time and memory; nothing in a page is executed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import NamedTuple

CPU_SECONDS = 5
MEMORY_BYTES = 1024 * 1024 * 1024  # of addresses, which are more than are used
WAIT_SECONDS = 8.0
MAX_CHILDREN = 4  # at once in this process
_places = threading.BoundedSemaphore(MAX_CHILDREN)


class Unreadable(Exception):
    """Raised for a page whose text cannot be had in time. The message is for the model."""


class Page(NamedTuple):
    title: str
    text: str


def readable(html: str, url: str, seconds: float = WAIT_SECONDS) -> Page:
    """Extract title and text: tables and lists keep their layout, links their absolute address. Raises `Unreadable`."""
    if not html.strip():
        return Page("", "")
    wait = max(0.0, min(seconds, WAIT_SECONDS))
    if not _places.acquire(timeout=wait):
        raise Unreadable("Too many pages are being read: try again later.")
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__, url],
            input=html.encode("utf-8", "replace"),
            capture_output=True,
            timeout=wait,
            env={},
            cwd="/",
            check=True,
        )
        return Page(**json.loads(done.stdout))
    except (subprocess.SubprocessError, OSError, ValueError, TypeError):
        raise Unreadable("The page cannot be read: it is broken, or too complicated.") from None
    finally:
        _places.release()


def _main(url: str) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS refuses it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    import lxml.html  # type: ignore[import-untyped]
    from inscriptis import Inscriptis  # type: ignore[import-untyped]
    from inscriptis.css_profiles import STRICT_CSS_PROFILE  # type: ignore[import-untyped]
    from inscriptis.model.config import ParserConfig  # type: ignore[import-untyped]

    parser = lxml.html.HTMLParser(encoding="utf-8", no_network=True)
    tree = lxml.html.document_fromstring(sys.stdin.buffer.read() or b" ", parser=parser)
    tree.make_links_absolute(url, handle_failures="discard")
    config = ParserConfig(display_links=True, css=STRICT_CSS_PROFILE)
    text = Inscriptis(tree, config).get_text()
    title = " ".join((tree.findtext(".//title") or "").split())
    lines = (line.rstrip() for line in text.splitlines())
    json.dump({"title": title, "text": "\n".join(lines).strip()}, sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1])
    sys.stdout.flush()
    os._exit(0)  # the tree of a large page takes long to be freed
