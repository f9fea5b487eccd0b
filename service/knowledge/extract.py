"""Text of a PDF or HTML document, made in a process of its own: `python -I extract.py pdf|html < document`.

A hostile document can keep any parser busy, or grow a thousandfold. The child has no environment, no memory of the
service, and limits of processor time, memory, pages and text; nothing in a document is executed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any

CPU_SECONDS = 20
MEMORY_BYTES = 1024 * 1024 * 1024  # of addresses, which are more than are used
WAIT_SECONDS = 30.0
MAX_CHILDREN = 4  # at once in this process
MAX_PAGES = 2_000
MAX_TEXT = 10 * 1024 * 1024  # characters
PAGE_END = "\f"
_HEADING_MARKS = {f"h{level}": chr(0xE000 + level) for level in range(1, 7)}  # private characters
_DROPPED = ("script", "style", "noscript", "template", "iframe", "object", "embed", "svg", "form")
_TOO_LONG = {"fault": f"has more than {MAX_TEXT} characters of text: split it"}
_places = threading.BoundedSemaphore(MAX_CHILDREN)


class Unreadable(Exception):
    """Raised for a document whose text cannot be had. The message says why, for its owner."""


class Busy(Exception):
    """Raised while as many documents are being read as may be."""


def extracted(kind: str, data: bytes) -> tuple[str, str]:
    """Return title and text of a `pdf` or `html` document. Raises `Unreadable` and `Busy`.

    Pages of a PDF end with `PAGE_END`; headings of HTML become Markdown's.
    """
    if not _places.acquire(timeout=WAIT_SECONDS):
        raise Busy
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__, kind],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WAIT_SECONDS,
            env={},
            cwd="/",
            check=True,
        )
        found = json.loads(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        raise Unreadable(f"is broken, or too complicated to be read as {kind.upper()}") from None
    finally:
        _places.release()
    if "fault" in found:
        raise Unreadable(found["fault"])
    return found["title"], found["text"]


def _pdf(data: bytes) -> dict[str, str]:
    import io
    import logging

    from pypdf import PdfReader

    logging.disable()
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        return {"fault": "is encrypted: save it without a password"}
    if len(reader.pages) > MAX_PAGES:
        return {"fault": f"has more than {MAX_PAGES} pages: split it"}
    pages, length = [], 0
    for page in reader.pages:
        pages.append((page.extract_text() or "").replace(PAGE_END, "\n").strip())
        length += len(pages[-1]) + 1
        if length > MAX_TEXT:
            return _TOO_LONG
    if not any(pages):
        return {"fault": "has no text: pages that are images need OCR first"}
    about: Any = reader.metadata
    return {"title": str(about.title or "") if about is not None else "", "text": PAGE_END.join(pages)}


def _html(data: bytes) -> dict[str, str]:
    import lxml.html  # type: ignore[import-untyped]
    from inscriptis import Inscriptis  # type: ignore[import-untyped]
    from inscriptis.css_profiles import STRICT_CSS_PROFILE  # type: ignore[import-untyped]
    from inscriptis.model.config import ParserConfig  # type: ignore[import-untyped]

    text = data.decode("utf-8-sig").translate(dict.fromkeys(map(ord, _HEADING_MARKS.values())))
    parser = lxml.html.HTMLParser(encoding="utf-8", no_network=True)
    tree = lxml.html.document_fromstring(text.encode() or b" ", parser=parser)
    for element in tree.xpath("|".join(f"//{name}" for name in _DROPPED)):
        element.drop_tree()
    for name, mark in _HEADING_MARKS.items():
        for element in tree.iter(name):
            element.text = mark + (element.text or "")
    shown = Inscriptis(tree, ParserConfig(css=STRICT_CSS_PROFILE)).get_text()
    text = "\n".join(map(_line, shown.splitlines())).strip()
    return {"title": tree.findtext(".//title") or "", "text": text} if len(text) <= MAX_TEXT else _TOO_LONG


def _line(line: str) -> str:
    """Return a line of text, a heading as Markdown writes it."""
    line = line.rstrip()
    for level, mark in enumerate(_HEADING_MARKS.values(), 1):
        if mark in line:
            return f"{'#' * level} {line.replace(mark, '').strip()}"
    return line


def _main(kind: str) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS refuses it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    data = sys.stdin.buffer.read()
    json.dump({"pdf": _pdf, "html": _html}[kind](data), sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1])
    sys.stdout.flush()
    os._exit(0)  # the tree of a large document takes long to be freed
