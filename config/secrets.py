"""Refuses secrets that can be guessed: placeholders, words everybody knows, repetitions, too few characters.

It cannot tell a good secret; `openssl rand -base64 48` makes one. Each check says why not, and never says the secret.
"""

from __future__ import annotations

import re
from itertools import pairwise
from urllib.parse import parse_qsl, unquote, urlsplit

ADVICE = "openssl rand -base64 48"
SHORTEST_KEY, SHORTEST_PASSWORD = 32, 12  # characters
LEAST_DIFFERENT = 10  # characters of a key; 48 hexadecimal digits have 15 of 16
LEAST_DIFFERENT_PASSWORD = 5
# In chance base64 none of these is ever found: the shortest has five letters.
_PLACEHOLDER = re.compile(
    r"change.?(me|this|it\b)|replace.?(me|this|with)|(your|my|some|the).?(own.?)?(secret|password|token|api.?key)"
    r"|(insert|enter|paste|put).?(your|here|a|the)\b|placeholder|example|development.only|demo.(only|password)"
    r"|to.?do.(set|change|fill|this|me|later)|\btodo\b|x{6}|\*{3}|secret.?key|(your|my|real).?key\b|key.here"
    r"|fill.?(me|this).?in|openssl.rand|bootstrap.password"
    r"|qwert|asdfgh|12345678|…|\.\.\.|^<.*>$|^\$\{?\w+\}?$|^\$\{",
    re.IGNORECASE,
)
_GIVEN_OUT = re.compile(r"^sk-(ant-)?(api\d\d-)?", re.IGNORECASE)  # how keys of providers begin
_LOOKALIKES = str.maketrans("@4301$5", "aaeolss")
_KNOWN = frozenset(
    {
        *(
            "admin",
            "administrator",
            "changeit",
            "default",
            "demo",
            "dummy",
            "foobared",
            "guest",
            "hunter",
            "letmein",
            "master",
            "none",
            "null",
        ),
        *(
            "pass",
            "passw0rd",
            "passwd",
            "password",
            "passwort",
            "postgres",
            "postgresql",
            "qwerty",
            "rabbitmq",
            "redis",
        ),
        *("root", "secret", "secretkey", "slipway", "test", "testing", "token", "user", "welcome"),
    }
)


def key(secret: str) -> str:
    """A key that signs. Raises ValueError."""
    _refuse(_guessable(secret) or _weak(secret, SHORTEST_KEY, LEAST_DIFFERENT), ADVICE)
    return secret


def password(secret: str, username: str = "") -> str:
    """A person's first password. Raises ValueError."""
    weak = _weak(secret, SHORTEST_PASSWORD, LEAST_DIFFERENT_PASSWORD)
    _refuse(_guessable(secret, username) or weak, "openssl rand -base64 18")
    return secret


def provider_key(secret: str) -> str:
    """A key that somebody else has given out, or empty. Raises ValueError for a placeholder."""
    own = _GIVEN_OUT.sub("", secret)
    made_up = "" if len(set(own)) > 2 else "is a placeholder"
    _refuse((_guessable(secret) or made_up) if secret else "", "put the provider's own there")
    return secret


def url(address: str) -> str:
    """An address whose password, where it has one, is no placeholder. Raises ValueError."""
    parts = urlsplit(address)
    told = dict(parse_qsl(parts.query))  # where libpq takes them too
    password = unquote(parts.password or "") or told.get("password", "")
    logins = (
        (password, unquote(parts.username or "") or told.get("user", "")),
        (told.get("sentinel_password", ""), told.get("sentinel_username", "")),
    )
    for password, user in logins:
        if password:
            said = _guessable(password, user)
            _refuse(said and f"has a password that {said}", "openssl rand -hex 24")
    return address


def _refuse(reason: str, advice: str) -> None:
    if reason:
        raise ValueError(f"{reason} ({advice})")


def _guessable(secret: str, username: str = "") -> str:
    """Why the first guess would be right, or nothing."""
    word = re.sub(r"[\W\d_]+$", "", secret.lower())
    spelt = {re.sub(r"[\W_]+", "", one) for one in (word, word.translate(_LOOKALIKES))}
    if _PLACEHOLDER.search(secret):
        return "is a placeholder"
    known = not spelt.isdisjoint(_KNOWN) or (secret.isdigit() and len(secret) < 10)
    if known or (secret and secret.lower() == username.lower()):
        return "is a word that everybody tries first"
    if len(set(secret)) < 3:
        return "is one or two characters over and over"
    return ""


def _weak(secret: str, shortest: int, different: int) -> str:
    """Why a few guesses more would be enough, or nothing."""
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
