"""Default addresses for empty settings. Functions raise ValueError with the fault, never with the value."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from urllib.parse import quote

OFFLINE_KEY = "offline"  # API key sent to the offline model
REDIS_SCHEMES = (
    "redis://",
    "rediss://",
    "unix://",
    "redis+sentinel://",
    "rediss+sentinel://",
    "redis+cluster://",
    "rediss+cluster://",
)
# sun_path holds 108 bytes on Linux and 104 on macOS, with the closing zero.
_MAX_SOCKET_PATH = 103
# After the scheme: user and password, hosts, path, query.
_URL_PARTS = re.compile(r"((?:[^/?#]*@)?)([^/?#@]*)([^?#]*)\??([^#]*)")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")


def database_url(url: str, home: Path) -> str:
    """Return the URL in SQLAlchemy's form; SQLite under `home` when empty."""
    if not url:
        return f"sqlite:///{home / 'slipway.db'}"
    for scheme in ("postgresql://", "postgres://", "postgresql+psycopg://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + _move_hosts_to_query(url.removeprefix(scheme))
    if url.startswith("sqlite://"):
        return url
    raise ValueError("must begin with postgresql:// or sqlite:///")


def _move_hosts_to_query(place: str) -> str:
    """Move several hosts to the query, SQLAlchemy's form for them: `?host=h1,h2&port=5432,5433`."""
    parts = _URL_PARTS.fullmatch(place)
    if parts is None or "," not in parts[2]:
        return place
    user, hosts, path, query = parts.groups()
    found = [match for host in hosts.split(",") if (match := _HOST.fullmatch(host))]
    if len(found) != hosts.count(",") + 1:
        raise ValueError("has a host or a port that is none; several hosts are written host1:5432,host2:5432")
    names, ports = (",".join(match[part] or "" for match in found) for part in (1, 2))
    more = [f"host={names.replace('[', '').replace(']', '')}"]
    more += [f"port={ports}"] if ports.strip(",") else []
    return f"{user}{path}?{'&'.join([*more, query] if query else more)}"


def redis_url(url: str, home: Path) -> str:
    """Return the URL in redis-py's form; the embedded server's socket when empty."""
    if not url:
        return embedded_redis_url(home)
    if not url.startswith(REDIS_SCHEMES):
        raise ValueError(f"must begin with one of {', '.join(REDIS_SCHEMES)}")
    return url


def embedded_redis_url(home: Path) -> str:
    """Return `unix://` and the socket's path, percent-encoded."""
    return f"unix://{quote(str(redis_socket(home)))}"


def redis_socket(home: Path) -> Path:
    """Return the embedded Redis's socket path: under `home`, or in a temporary folder if that path is too long."""
    socket = home / "run" / "redis.sock"
    if len(os.fsencode(socket)) <= _MAX_SOCKET_PATH:
        return socket
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"slipway-{digest}" / "redis.sock"


def model_url(url: str, key: str, offline_port: int) -> str:
    """Return the Messages API's base URL without a trailing slash; empty: the SDK's own."""
    if not url:
        return f"http://127.0.0.1:{offline_port}" if is_offline(key) else ""
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url.rstrip("/")


def is_offline(key: str) -> bool:
    """Check whether the offline model answers: no API key."""
    return key in ("", OFFLINE_KEY)
