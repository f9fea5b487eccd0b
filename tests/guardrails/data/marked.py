"""Values marked in texts as `«kind|form»`, filled with right check digits.

`#` is a digit, `§` a letter or digit, `Å` a capital or digit, `¤` a hexadecimal digit.
"""

from __future__ import annotations

import random
import re
from base64 import urlsafe_b64encode
from pathlib import Path
from string import ascii_letters, ascii_uppercase, digits

from stdnum import iban, luhn
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel

from tests.guardrails.data.sets import Sentence

_HERE = Path(__file__).parent
_MARK = re.compile(r"«([a-z_-]+)(?:\.([a-z]+)|:([A-Z0-9]+))?\|(.*?)»")
_SIGNS = {"§": ascii_letters + digits, "Å": ascii_uppercase + "234567", "¤": "0123456789abcdef", "#": digits}
_CHECKS = {
    "card": luhn,
    "steuer": idnr,
    "nir": nir,
    "dni": dni,
    "nie": nie,
    "nhs": nhs,
    "bsn": bsn,
    "pesel": pesel,
}


def marked_texts(name: str) -> list[Sentence]:
    rng, found = random.Random(name), []
    for source in (_HERE / f"{name}_texts.txt").read_text().split("\n%%\n"):
        text, done, spans = "", 0, list[tuple[str, int, int]]()
        for mark in _MARK.finditer(source):
            text += source[done : mark.start()]
            begin = mark[3] if mark[1] == "card" else ""
            new = _value(mark[1], mark[2] or mark[1], _begun(mark[4], begin), rng)
            if new:
                spans.append((mark[1], len(text), len(text) + len(new)))
            text, done = text + new, mark.end()
        found.append(Sentence(name, text + source[done:], spans))
    return found


def marked_look_alikes(name: str) -> list[str]:
    return [
        text
        for line in (_HERE / f"{name}_look_alikes.txt").read_text().splitlines()
        for text in line.split(" ;; ")
    ]


def _begun(form: str, begin: str) -> str:
    """Return the form of a card's number with the first figures of its brand."""
    figures = iter(begin)
    return re.sub("[#0-9]", lambda one: next(figures, one[0]), form)


def _value(kind: str, check: str, form: str, rng: random.Random) -> str:
    if check in ("cf", "jwt", "pem"):
        return {"cf": _codice, "jwt": _jwt, "pem": _pem}[check](rng)
    if kind == "phone" or not re.search("[#§Å¤]", form):
        return form
    while True:
        new = re.sub("[#§Å¤]", lambda sign: rng.choice(_SIGNS[sign[0]]), form)
        if new := _checked(check, new):
            return new


def _checked(check: str, new: str) -> str:
    """Return the value with right check digits, or none where these figures can have none."""
    bare = re.sub("[ ./-]", "", new)
    if check == "iban":
        return new[:2] + iban.calc_check_digits(bare) + new[4:]
    if check in ("dni", "nie"):
        return new[:-1] + _CHECKS[check].calc_check_digit(bare[:-1])
    if check == "ssn":
        bad = bare[:3] in ("000", "666") or bare[0] == "9" or bare[3:5] == "00" or bare[5:] == "0000"
        return "" if bad else new
    module = _CHECKS.get(check)
    return new if module is None or module.is_valid(bare) else ""


def _codice(rng: random.Random) -> str:
    letters = "BCDFGLMNPRST"
    name = "".join(rng.choice(letters) for _ in range(6))
    born = f"{rng.randint(40, 99)}{rng.choice('ABCDEHLMPRST')}{rng.choice((0, 40)) + rng.randint(1, 28):02}"
    code = f"{name}{born}{rng.choice('FHL')}{rng.randint(100, 999)}"
    return code + codicefiscale.calc_check_digit(code)


def _jwt(rng: random.Random) -> str:
    claims = (
        urlsafe_b64encode(f'{{"sub":"{rng.randint(1000, 9999)}","iat":1732982331}}'.encode())
        .decode()
        .rstrip("=")
    )
    return f"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.{claims}.{_of(ascii_letters + digits, 43, rng)}"


def _pem(rng: random.Random) -> str:
    lines = "\n".join(_of(ascii_letters + digits + "+/", 64, rng) for _ in range(6))
    return f"-----BEGIN RSA PRIVATE KEY-----\n{lines}\n-----END RSA PRIVATE KEY-----"


def _of(signs: str, length: int, rng: random.Random) -> str:
    return "".join(rng.choice(signs) for _ in range(length))
