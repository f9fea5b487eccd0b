"""Checks of single settings. Each returns the value or raises ValueError with the fault, never with the value."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

import limits
from pydantic import SecretStr

# As the service has them: `service/auth/users.py`, which tests/config/test_secrets.py holds them to.
USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
SHORTEST_PASSWORD, LONGEST_PASSWORD = 8, 256  # characters
_OF_SENTINELS = ("service_name", "sentinel_username", "sentinel_password")
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
# Digits are ASCII digits: `int`, `Decimal` and those who connect also take the digits of other scripts.
_WHOLE_NUMBER = re.compile(r"[0-9]{1,5}")
_DOLLARS = re.compile(r"[+-]?[0-9]{1,12}(?:\.[0-9]{1,12})?")


def absolute(path: Path) -> Path:
    """The whole path, with `~` as somebody's home."""
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise ValueError("begins with ~ and a name that has no home on this machine") from None


def host(text: str) -> str:
    """An address or name to listen on."""
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", text):
        raise ValueError("is not an address to listen on, such as 127.0.0.1")
    return text


def rate_limit(text: str) -> str:
    """A rate limit as the `limits` library reads it, such as `60/minute` or `60/minute;1000/day`."""
    try:
        parsed = limits.parse_many(text)
    except ValueError as error:
        raise ValueError("is not a rate limit such as 60/minute, or none") from error
    if not all(1 <= rate.amount <= 10**9 and 1 <= rate.multiples <= 10**6 for rate in parsed):
        raise ValueError("is not a rate limit from 1 to a billion calls")
    return text


def broker_url(url: str) -> str:
    """A broker that Celery's worker can be held to: acknowledged late, sent again when a worker is lost."""
    schemes = (
        *("amqp://", "amqps://", "redis://", "rediss://"),
        *("redis+sentinel://", "rediss+sentinel://"),
    )
    if url and not url.startswith(schemes):
        raise ValueError(f"must begin with one of {', '.join(schemes)}")
    return redis_url(url) if url.startswith("redis") else with_port(certificates(url))


def redis_url(url: str) -> str:
    """An address of Redis, whose ports and database are numbers."""
    if url.startswith(("redis://", "rediss://")):
        database = _parts(url).path.strip("/")
        if database and not _WHOLE_NUMBER.fullmatch(database):
            raise ValueError("must end with the number of a database, such as redis://host:6379/0")
    if not all(map(_WHOLE_NUMBER.fullmatch, _redis_numbers(url))):
        raise ValueError("has a port or a database that is not a number in the digits 0 to 9")
    certificates(url)
    known = ("db", *(_OF_SENTINELS if "+sentinel://" in url else ()))
    told = dict(parse_qsl(url.partition("?")[2], keep_blank_values=True))
    if any(
        name not in known and not name.startswith("ssl_") for name in told
    ):  # it may be half of a password
        raise ValueError(f"has an option that is not known; behind the ? may stand {', '.join(known)}, ssl_…")
    return url


def certificates(url: str) -> str:
    """An address over TLS: the files that it names can be read, and its words are known."""
    told = dict(parse_qsl(url.partition("?")[2]))
    tls = {name: value for name, value in told.items() if name.startswith("ssl_")}
    if tls and not url.startswith(("rediss", "amqps")):
        raise ValueError("has options of TLS, and its scheme has no TLS: begin with rediss or amqps")
    if unknown := sorted(set(tls) - {*_TLS_FILES, "ssl_check_hostname", "ssl_cert_reqs"}):
        raise ValueError(f"has options of TLS that are not known: {', '.join(unknown)}")
    for name in _TLS_FILES:
        if name in tls and not os.access(tls[name], os.R_OK):
            raise ValueError(f"names a file in {name} that cannot be read")
    if ("ssl_certfile" in tls) != ("ssl_keyfile" in tls):
        raise ValueError("needs ssl_certfile and ssl_keyfile together")
    if tls.get("ssl_cert_reqs", "required") not in ("required", "optional", "none"):
        raise ValueError("has an ssl_cert_reqs that is not required, optional or none")
    return url


def _redis_numbers(url: str) -> Iterator[str]:
    """Ports, `?db=`, and the database behind the name of a Sentinel's master."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.rpartition("@")[2].partition("?")
    hosts, _, path = place.partition("/")
    yield from re.findall(r"(?:^|&)db=([^&]*)", query)
    if scheme.endswith("+sentinel"):
        yield from [part for part in path.split("/") if part][1:]
    if scheme != "unix":
        ports = (
            host.rpartition("]")[2].partition(":")[2] for host in hosts.split(",")
        )  # `]` ends an IPv6 address
        yield from (port for port in ports if port)


def with_port(url: str) -> str:
    """An address whose port, where it has one, is a number."""
    _parts(url)
    return url


def http_url(url: str) -> str:
    """An `http` or `https` URL, or empty."""
    parts = _parts(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError("must begin with http:// or https:// and name a host")
    return url


def webhook_url(url: str) -> str:
    """An `http` or `https` URL without a user's name, or empty. Where it may lead is for the sender to say."""
    if "@" in _parts(http_url(url)).netloc:
        raise ValueError("is not an http or https URL without a user name")
    return url


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # read for its error
    except ValueError:  # whose words may hold a password
        raise ValueError(
            "is not a URL with a number as port; in a user name or password @ is %40, / %2F, # %23 and % %25"
        ) from None
    return parts


def dollars(text: str) -> str:
    """An amount of dollars in decimals, such as `12.50`."""
    if _DOLLARS.fullmatch(text) is None:
        raise ValueError("is not an amount of dollars such as 12.50, or none")
    amount = Decimal(text)
    if not 0 <= amount < 10**9 or amount != round(amount, 9):
        raise ValueError("is not an amount from 0 to below a billion dollars, in nano-dollars at the finest")
    return text


def header(key: SecretStr) -> SecretStr:
    """A key that can be sent in a header, or empty."""
    if not re.fullmatch(r"[!-~]*", key.get_secret_value()):
        raise ValueError(
            "has a character that no key has, such as a space or an ellipsis: is it a placeholder?"
        )
    return key


def username(name: str) -> str:
    """The name of a user, or empty."""
    if name and not USERNAME.fullmatch(name):
        raise ValueError("must be 1 to 128 of A-Z a-z 0-9 . _ @ + -, a letter or digit first")
    return name


def password(secret: SecretStr) -> SecretStr:
    """A password that a user may have, or empty."""
    length = len(secret.get_secret_value())
    if length and not SHORTEST_PASSWORD <= length <= LONGEST_PASSWORD:
        raise ValueError(f"must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    return secret


def ed25519_key(pem: SecretStr) -> SecretStr:
    """An unencrypted Ed25519 private key in PEM, or empty."""
    if not pem.get_secret_value():
        return pem
    # Only here: the import is slow and few installations sign with a key pair.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.get_secret_value().encode(), password=None)
    except (ValueError, TypeError) as error:
        raise ValueError("is not an unencrypted private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is not an Ed25519 key (openssl genpkey -algorithm ed25519)")
    return pem
