"""PDFs made by hand: pages of text, encrypted ones, and bombs."""

from __future__ import annotations

import io
import zlib

from pypdf import PdfReader, PdfWriter

FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"


def pdf(*pages: str, title: str = "") -> bytes:
    """Make a PDF with a page for each text."""
    return _document([_content(text) for text in pages], title)


def bomb(megabytes: int) -> bytes:
    """Make a PDF whose only page grows to this size."""
    packed = zlib.compressobj(9)
    stream = b"".join(packed.compress(b" " * 1024 * 1024) for _ in range(megabytes)) + packed.flush()
    return _document([(b"/Filter/FlateDecode", stream)], "")


def encrypted(password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("A secret page."))))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _content(text: str) -> tuple[bytes, bytes]:
    lines = [line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)") for line in text.split("\n")]
    shown = "".join(f"({line}) Tj T*\n" for line in lines)
    return b"", f"BT /F1 12 Tf 14 TL 72 720 Td\n{shown}ET".encode("cp1252")


def _document(contents: list[tuple[bytes, bytes]], title: str) -> bytes:
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(contents)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(contents)}/Kids[{kids}]>>".encode(),
        FONT,
    ]
    for n, (filters, content) in enumerate(contents):
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents {5 + 2 * n} 0 R"
            "/Resources<</Font<</F1 3 0 R>>>>>>".encode()
        )
        objects.append(b"<<%b/Length %d>>stream\n%b\nendstream" % (filters, len(content), content))
    objects.append(f"<</Title({title})>>".encode())
    out, places = bytearray(b"%PDF-1.7\n"), []
    for number, one in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, one)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer<</Size %d/Root 1 0 R/Info %d 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        len(objects),
        start,
    )
    return bytes(out)
