"""Weak-secret checks: placeholders, common words, repetitions, too few characters.

Passing proves no strength; `openssl rand -base64 48` makes a strong secret. Faults never contain the secret.
"""

from __future__ import annotations

import os
import re
import stat
from itertools import pairwise
from typing import TextIO
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr
from pydantic.fields import FieldInfo

ADVICE = "openssl rand -base64 48"
CONTAINER_SECRETS = "/run/secrets/"
MIN_KEY, MIN_PASSWORD = 32, 12  # characters
MIN_DISTINCT_IN_KEY = 10  # characters of a key; 48 hexadecimal digits have 15 of 16
MIN_DISTINCT_IN_PASSWORD = 5
# Too long to occur by chance in random base64: the shortest has five letters.
_PLACEHOLDER = re.compile(
    r"change.?(me|this|it\b)|replace.?(me|this|with)|(your|my|some|the).?(own.?)?(secret|password|token|api.?key)"
    r"|(insert|enter|paste|put).?(your|here|a|the)\b|placeholder|example|development.only|demo.(only|password)"
    r"|to.?do.(set|change|fill|this|me|later)|\btodo\b|x{6}|\*{3}|secret.?key|(your|my|real).?key\b|key.here"
    r"|fill.?(me|this).?in|openssl.rand|bootstrap.password"
    r"|qwert|asdfgh|12345678|…|\.\.\.|^<.*>$|^\$\{?\w+\}?$|^\$\{",
    re.IGNORECASE,
)
_PROVIDER_PREFIX = re.compile(r"^sk-(ant-)?(api\d\d-)?", re.IGNORECASE)  # prefix of providers' keys
_LEETSPEAK = str.maketrans("@4301$5", "aaeolss")
_COMMON_WORD_LIST = (
    "admin administrator changeit default demo dummy foobared guest hunter letmein master none null pass "
    "passw0rd passwd password passwort postgres postgresql qwerty rabbitmq redis root secret secretkey "
    "slipway test testing token user welcome"
)
_COMMON_WORDS = frozenset(_COMMON_WORD_LIST.split())


def key(secret: str) -> str:
    """Check a signing key. Raises ValueError."""
    _refuse(_guessable(secret) or _weak(secret, MIN_KEY, MIN_DISTINCT_IN_KEY), ADVICE)
    return secret


def password(secret: str, username: str = "") -> str:
    """Check a bootstrap password. Raises ValueError."""
    weak = _weak(secret, MIN_PASSWORD, MIN_DISTINCT_IN_PASSWORD)
    _refuse(_guessable(secret, username) or weak, "openssl rand -base64 18")
    return secret


def provider_key(secret: str) -> str:
    """Check an external provider's key; empty passes. Raises ValueError for a placeholder."""
    own = _PROVIDER_PREFIX.sub("", secret)
    made_up = "" if len(set(own)) > 2 else "is a placeholder"
    _refuse((_guessable(secret) or made_up) if secret else "", "put the provider's own there")
    return secret


def url(address: str) -> str:
    """Check the password in a URL, if any. Raises ValueError."""
    parts = urlsplit(address)
    query = dict(parse_qsl(parts.query))  # libpq reads credentials from the query too
    password = unquote(parts.password or "") or query.get("password", "")
    logins = (
        (password, unquote(parts.username or "") or query.get("user", "")),
        (query.get("sentinel_password", ""), query.get("sentinel_username", "")),
    )
    for password, user in logins:
        if password:
            fault = _guessable(password, user)
            _refuse(fault and f"has a password that {fault}", "openssl rand -hex 24")
    return address


def is_secret(field: FieldInfo) -> bool:
    """Return whether a setting is a secret, or an address that may hold one."""
    return field.annotation is SecretStr or not field.repr


def others_can_read(file: TextIO) -> bool:
    """Return whether users other than a file's owner and group can read it.

    Files in `CONTAINER_SECRETS` pass: container engines mount them for one container, with the host's modes.
    """
    return bool(os.fstat(file.fileno()).st_mode & stat.S_IROTH) and not file.name.startswith(
        CONTAINER_SECRETS
    )


def _refuse(reason: str, advice: str) -> None:
    if reason:
        raise ValueError(f"{reason} ({advice})")


def _guessable(secret: str, username: str = "") -> str:
    """Return why the secret is among the first guesses, or an empty string."""
    word = re.sub(r"[\W\d_]+$", "", secret.lower())
    spelt = {re.sub(r"[\W_]+", "", one) for one in (word, word.translate(_LEETSPEAK))}
    if _PLACEHOLDER.search(secret):
        return "is a placeholder"
    known = not spelt.isdisjoint(_COMMON_WORDS) or (secret.isdigit() and len(secret) < 10)
    if known or (secret and secret.lower() == username.lower()):
        return "is a word that everybody tries first"
    if len(set(secret)) < 3:
        return "is one or two characters over and over"
    return ""


def _weak(secret: str, shortest: int, different: int) -> str:
    """Return why the secret has too little entropy, or an empty string."""
    text = secret.strip()
    if len(text) < shortest:
        return f"is shorter than {shortest} characters"
    if len(set(text)) < different:
        return f"has fewer than {different} different characters"
    if any(text == (text[:period] * len(text))[: len(text)] for period in range(1, len(text) // 2 + 1)):
        return "repeats itself"
    steps = [abs(ord(one) - ord(other)) for one, other in pairwise(text)]
    if sum(step <= 1 for step in steps) > len(steps) / 2:
        return "counts up or down"
    return ""
