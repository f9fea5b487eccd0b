"""Checks of single settings: each returns the value, or raises ValueError with the fault but never the value."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

import limits
from pydantic import SecretStr

# Equal to those of `service/auth/users.py` and `passwords.py`, which tests/config/test_secrets.py verifies.
USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
MIN_PASSWORD, MAX_PASSWORD = 8, 256  # characters
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SENTINEL_OPTIONS = ("service_name", "sentinel_username", "sentinel_password")
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
# ASCII digits only: `int`, `Decimal` and client libraries also accept other scripts' digits.
_WHOLE_NUMBER = re.compile(r"[0-9]{1,5}")
_DOLLARS = re.compile(r"[+-]?[0-9]{1,12}(?:\.[0-9]{1,12})?")


def absolute(path: Path) -> Path:
    """Make a path absolute, expanding `~`."""
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise ValueError("begins with ~ and a name that has no home on this machine") from None


def host(text: str) -> str:
    """Check an address or name to listen on."""
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", text):
        raise ValueError("is not an address to listen on, such as 127.0.0.1")
    return text


def rate_limit(text: str) -> str:
    """Check a rate limit of the `limits` library, such as `60/minute` or `60/minute;1000/day`."""
    try:
        parsed = limits.parse_many(text)
    except ValueError as error:
        raise ValueError("is not a rate limit such as 60/minute, or none") from error
    if not all(1 <= rate.amount <= 10**9 and 1 <= rate.multiples <= 10**6 for rate in parsed):
        raise ValueError("is not a rate limit from 1 to a billion calls")
    return text


def agent_elsewhere(text: str) -> str:
    """Check an agent with its address: `research=http://research:9100/research`."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}=https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?", text):
        raise ValueError("is not an agent and its address, such as research=http://research:9100/research")
    return text


def origin(text: str) -> str:
    """Check an origin as browsers send it: `https://name` or with a port, or `*` for all."""
    if text != "*" and not re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", text):
        raise ValueError("is not an origin such as https://app.example.com, in lower case and without a path")
    return text


def place(text: str) -> str:
    """Check a host's name or IPv4 address, alone or with a port."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?", text):
        raise ValueError("is not a host such as wiki.example.com or 10.0.0.7:8080, in lower case")
    return text


def keyring(url: str, others: Mapping[str, object]) -> str:
    """Check that the keyring is another database than the service's, and a file that others cannot read."""
    if _database(url) == _database(str(others.get("database_url", ""))):
        raise ValueError(
            "is the database of DATABASE_URL, whose backups would have the keys beside the texts"
        )
    if url.startswith("sqlite"):
        path = Path(_database(url)[1])
        if path.exists() and path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ValueError(f"can be read by every user of this machine in {path} (chmod 600)")
    return url


def _database(url: str) -> tuple[str, ...]:
    """Return what tells a database from others: a file's path, or hosts and name."""
    scheme, _, place = url.partition("://")
    place, _, query = place.partition("?")
    if scheme == "sqlite":
        return scheme, str(Path(place[1:]).resolve()) if place else ""
    host, _, name = place.rpartition("@")[2].partition("/")
    options = dict(parse_qsl(query))
    return scheme, host, name or options.get("dbname", ""), options.get("host", ""), options.get("port", "")


def broker_url(url: str) -> str:
    """Check a broker URL: only transports with late acknowledgement and redelivery."""
    schemes = (
        *("amqp://", "amqps://", "redis://", "rediss://"),
        *("redis+sentinel://", "rediss+sentinel://"),
    )
    if url and not url.startswith(schemes):
        raise ValueError(f"must begin with one of {', '.join(schemes)}")
    return redis_url(url) if url.startswith("redis") else with_port(certificates(url))


def redis_url(url: str) -> str:
    """Check a Redis URL: numeric ports and database, known options."""
    if url.startswith(("redis://", "rediss://")):
        database = _parts(url).path.strip("/")
        if database and not _WHOLE_NUMBER.fullmatch(database):
            raise ValueError("must end with the number of a database, such as redis://host:6379/0")
    if not all(map(_WHOLE_NUMBER.fullmatch, _redis_numbers(url))):
        raise ValueError("has a port or a database that is not a number in the digits 0 to 9")
    certificates(url)
    known = ("db", *(_SENTINEL_OPTIONS if "+sentinel://" in url else ()))
    options = dict(parse_qsl(url.partition("?")[2], keep_blank_values=True))
    # An unknown option may be half of a password, so the fault does not name it.
    if any(name not in known and not name.startswith("ssl_") for name in options):
        raise ValueError(f"has an option that is not known; behind the ? may stand {', '.join(known)}, ssl_…")
    return url


def certificates(url: str) -> str:
    """Check a URL's TLS options: known names and values, readable files."""
    options = dict(parse_qsl(url.partition("?")[2]))
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
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
    """Yield the numeric parts: ports, `?db=`, and the database after a Sentinel's service name."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.rpartition("@")[2].partition("?")
    hosts, _, path = place.partition("/")
    yield from re.findall(r"(?:^|&)db=([^&]*)", query)
    if scheme.endswith("+sentinel"):
        yield from [part for part in path.split("/") if part][1:]
    if scheme != "unix":
        # `]` ends an IPv6 address.
        ports = (host.rpartition("]")[2].partition(":")[2] for host in hosts.split(","))
        yield from (port for port in ports if port)


def with_port(url: str) -> str:
    """Check that a URL's port, if any, is a number."""
    _parts(url)
    return url


def http_url(url: str) -> str:
    """Check an `http` or `https` URL without a user name or password; empty passes."""
    parts = _parts(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError("must begin with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise ValueError("is not an http or https URL without a user name")
    return url


def own_address(url: str) -> str:
    """Check the service's own origin; empty passes."""
    if url == "*":
        raise ValueError("is not an address such as https://agents.example.com")
    return over_tls(url and origin(url))


def issuer(url: str) -> str:
    """Check an OpenID Connect issuer; empty passes."""
    parts = _parts(over_tls(url))
    if url and (parts.query or parts.fragment or not re.fullmatch(r"[!-~]{1,255}", url)):
        raise ValueError("is not an issuer such as https://login.example.com, without user name, ? and #")
    return url


def over_tls(url: str) -> str:
    """Check that an address is `https`, or on this machine; empty passes."""
    parts = _parts(http_url(url))
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ValueError("must begin with https://, unless it is on this machine")
    return url


def with_others(value: str, others: Mapping[str, object], *needed: str) -> str:
    """Check that the settings are there without which `value` does nothing; empty passes."""
    for name in needed:
        if value and others.get(name) == "":  # not there at all: it has a fault of its own
            raise ValueError(f"needs {name.upper()}")
    return value


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # read for its error
    except ValueError:  # its message may hold a password
        raise ValueError(
            "is not a URL with a number as port; in a user name or password @ is %40, / %2F, # %23 and % %25"
        ) from None
    return parts


def dollars(text: str) -> str:
    """Check a decimal amount of dollars, such as `12.50`."""
    if _DOLLARS.fullmatch(text) is None:
        raise ValueError("is not an amount of dollars such as 12.50, or none")
    amount = Decimal(text)
    if not 0 <= amount < 10**9 or amount != round(amount, 9):
        raise ValueError("is not an amount from 0 to below a billion dollars, in nano-dollars at the finest")
    return text


def header(key: SecretStr) -> SecretStr:
    """Check that a key is valid in an HTTP header; empty passes."""
    if not re.fullmatch(r"[!-~]*", key.get_secret_value()):
        raise ValueError(
            "has a character that no key has, such as a space or an ellipsis: is it a placeholder?"
        )
    return key


def username(name: str) -> str:
    """Check a user name; empty passes."""
    if name and not USERNAME.fullmatch(name):
        raise ValueError("must be 1 to 128 of A-Z a-z 0-9 . _ @ + -, a letter or digit first")
    return name


def password(secret: SecretStr) -> SecretStr:
    """Check a password's length; empty passes."""
    length = len(secret.get_secret_value())
    if length and not MIN_PASSWORD <= length <= MAX_PASSWORD:
        raise ValueError(f"must have {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return secret


def ed25519_key(pem: SecretStr) -> SecretStr:
    """Check an unencrypted Ed25519 private key in PEM; empty passes."""
    if not pem.get_secret_value():
        return pem
    # Imported here: slow to load, and few installations sign with a key pair.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.get_secret_value().encode(), password=None)
    except (ValueError, TypeError) as error:
        raise ValueError("is not an unencrypted private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is not an Ed25519 key (openssl genpkey -algorithm ed25519)")
    return pem
