"""Addresses of Redis: `redis://`, `unix://`, `redis+sentinel://`, `redis+cluster://`; with `rediss` over TLS."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

_OFF = ("0", "f", "false", "n", "no")
_TLS = "ssl_"  # how its options begin, as redis-py names them


class RedisAddress(NamedTuple):
    """One address taken apart. `tls`: redis-py's options of a connection over TLS; None: in the clear."""

    scheme: str  # without the `s` of TLS: `redis`, `unix`, `redis+sentinel`, `redis+cluster`, `amqp`
    hosts: list[tuple[str, int]]
    login: dict[str, str]  # `username` and `password`, where there are any
    sentinel_login: dict[str, str]  # those of the sentinels themselves
    path: list[str]
    tls: dict[str, Any] | None
    options: dict[str, str]  # all else behind the `?`

    @property
    def service(self) -> str:
        """The name of Sentinel's master."""
        return self.path[0] if self.path else self.options.get("service_name", "mymaster")

    @property
    def database(self) -> int:
        """The number behind that name."""
        return int(self.path[1]) if len(self.path) > 1 else 0


def parse(url: str) -> RedisAddress:
    """Take an address apart. Its numbers were checked with the settings."""
    parts = urlsplit(url)
    given, secure = _plain(parts.scheme)
    query = dict(parse_qsl(parts.query))
    tls = _tls(query) if secure else None
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    return RedisAddress(
        given,
        _hosts(hosts, 26379 if given == "redis+sentinel" else 6379),
        _login(unquote(user), unquote(password)),
        _login(query.get("sentinel_username", ""), query.get("sentinel_password", "")),
        [part for part in parts.path.split("/") if part],
        tls,
        {name: value for name, value in query.items() if not name.startswith((_TLS, "sentinel_"))},
    )


def without_tls_options(url: str) -> str:
    """The same address without what `parse` has read of TLS, for a library that reads it in its own way."""
    before, _, query = url.partition("?")
    kept = [(name, value) for name, value in parse_qsl(query) if not name.startswith(_TLS)]
    return f"{before}?{urlencode(kept)}" if kept else before


def _plain(scheme: str) -> tuple[str, bool]:
    """A scheme without the `s` of TLS, and whether it had one."""
    name, plus, kind = scheme.partition("+")
    secure = name in ("rediss", "amqps")
    return f"{name.removesuffix('s') if secure else name}{plus}{kind}", secure


def _tls(query: dict[str, str]) -> dict[str, Any]:
    """Certificates are checked, and the name in them, unless the address says otherwise."""
    told: dict[str, Any] = {name: value for name, value in query.items() if name.startswith(_TLS)}
    checked = told.get("ssl_check_hostname", "").lower() not in _OFF
    return {"ssl_cert_reqs": "required", **told, "ssl_check_hostname": checked}


def _hosts(text: str, port: int) -> list[tuple[str, int]]:
    """Hosts and ports; an IPv6 address stands in brackets."""
    found = []
    for one in text.split(","):
        host, bracket, rest = one.rpartition("]")
        if not bracket:
            host, _, rest = one.partition(":")
        found.append((host.removeprefix("["), int(rest.removeprefix(":") or port)))
    return found


def _login(username: str, password: str) -> dict[str, str]:
    return {name: value for name, value in (("username", username), ("password", password)) if value}
