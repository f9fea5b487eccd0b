"""Parser of Redis URLs: `redis://`, `unix://`, `redis+sentinel://`, `redis+cluster://`; `rediss` means TLS."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

_OFF = ("0", "f", "false", "n", "no")
_TLS = "ssl_"  # prefix of TLS options, as redis-py names them


class RedisAddress(NamedTuple):
    """Parsed Redis URL. `tls`: redis-py's TLS options; None: no TLS."""

    scheme: str  # without the `s` for TLS: `redis`, `unix`, `redis+sentinel`, `redis+cluster`, `amqp`
    hosts: list[tuple[str, int]]
    login: dict[str, str]  # `username` and `password`, where given
    sentinel_login: dict[str, str]  # for the sentinels themselves
    path: list[str]
    tls: dict[str, Any] | None
    options: dict[str, str]  # other query parameters

    @property
    def service(self) -> str:
        """Service name of Sentinel's master, first in the path."""
        return self.path[0] if self.path else self.options.get("service_name", "mymaster")

    @property
    def database(self) -> int:
        """Database number, second in the path."""
        return int(self.path[1]) if len(self.path) > 1 else 0


def parse(url: str) -> RedisAddress:
    """Parse a URL whose numbers were validated with the settings."""
    parts = urlsplit(url)
    scheme, secure = _plain(parts.scheme)
    query = dict(parse_qsl(parts.query))
    tls = _tls(query) if secure else None
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    return RedisAddress(
        scheme,
        _hosts(hosts, 26379 if scheme == "redis+sentinel" else 6379),
        _login(unquote(user), unquote(password)),
        _login(query.get("sentinel_username", ""), query.get("sentinel_password", "")),
        [part for part in parts.path.split("/") if part],
        tls,
        {name: value for name, value in query.items() if not name.startswith((_TLS, "sentinel_"))},
    )


def without_tls_options(url: str) -> str:
    """Remove TLS options from a URL, for a library that takes them in another way."""
    before, _, query = url.partition("?")
    others = [(name, value) for name, value in parse_qsl(query) if not name.startswith(_TLS)]
    return f"{before}?{urlencode(others)}" if others else before


def _plain(scheme: str) -> tuple[str, bool]:
    """Split the `s` for TLS off a scheme; return the rest, and whether there was one."""
    name, plus, kind = scheme.partition("+")
    secure = name in ("rediss", "amqps")
    return f"{name.removesuffix('s') if secure else name}{plus}{kind}", secure


def _tls(query: dict[str, str]) -> dict[str, Any]:
    """TLS options: certificate and host name are verified unless the URL says otherwise."""
    given: dict[str, Any] = {name: value for name, value in query.items() if name.startswith(_TLS)}
    check_hostname = given.get("ssl_check_hostname", "").lower() not in _OFF
    return {"ssl_cert_reqs": "required", **given, "ssl_check_hostname": check_hostname}


def _hosts(text: str, port: int) -> list[tuple[str, int]]:
    """Parse hosts and ports; IPv6 addresses are in brackets."""
    found = []
    for item in text.split(","):
        host, bracket, suffix = item.rpartition("]")
        if not bracket:
            host, _, suffix = item.partition(":")
        found.append((host.removeprefix("["), int(suffix.removeprefix(":") or port)))
    return found


def _login(username: str, password: str) -> dict[str, str]:
    return {name: value for name, value in (("username", username), ("password", password)) if value}
