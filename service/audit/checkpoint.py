"""Checkpoints: the head of a chain, signed, to be kept elsewhere. They show a tail that was cut or a history rewritten.

The key is Ed25519, derived from SECRET_KEY: nothing to set up, and whoever has the database alone cannot sign.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import orjson
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from service.audit.verify import AuditFault
from service.store import audit as rows
from service.store.database import Database
from service.types import now_ms, rfc3339


class NoCheckpoint(ValueError):
    """Raised for a line that is no checkpoint, or that another key signed."""


class Checkpoint(NamedTuple):
    """Head of a workspace's chain at a time (RFC 3339)."""

    workspace_id: str
    seq: int
    hash: str
    at: str

    @property
    def signed(self) -> bytes:
        """Canonical JSON (RFC 8785), over which the signature goes."""
        return rfc8785.dumps({"type": "slipway-audit-checkpoint", **self._asdict()})


class Checkpoints:
    """Writer and reader of checkpoints."""

    def __init__(self, db: Database, secret: str) -> None:
        self._db = db
        seed = hmac.digest(secret.encode(), b"slipway audit checkpoints", "sha256")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def public_key(self) -> str:
        """Public key, base64."""
        return b64encode(self._key.public_key().public_bytes_raw()).decode()

    def lines(self) -> Iterator[str]:
        """Sign the head of every workspace; one line of JSON each."""
        for workspace_id in self._db.query(rows.workspaces):
            head = self._db.query(partial(rows.head, workspace_id=workspace_id))
            if head is not None:
                point = Checkpoint(workspace_id, head["seq"], head["hash"], rfc3339(now_ms()) or "")
                signature = b64encode(self._key.sign(point.signed)).decode()
                line = {**point._asdict(), "public_key": self.public_key, "signature": signature}
                yield orjson.dumps(line).decode()

    def read(self, line: str, public_key: str | None = None) -> Checkpoint:
        """Read a line signed by this SECRET_KEY, or by `public_key`. Raises `NoCheckpoint`."""
        try:
            found: dict[str, Any] = orjson.loads(line)
            point = Checkpoint(found["workspace_id"], found["seq"], found["hash"], found["at"])
            key = Ed25519PublicKey.from_public_bytes(b64decode(public_key or self.public_key, validate=True))
            key.verify(b64decode(found["signature"], validate=True), point.signed)
        except InvalidSignature:
            raise NoCheckpoint("is not signed by this key") from None
        except (ValueError, TypeError, LookupError):
            raise NoCheckpoint("is no checkpoint") from None
        return point

    def compare(self, point: Checkpoint) -> AuditFault | None:
        """Compare the chain, which is verified elsewhere, with a checkpoint of it."""
        link = self._db.query(partial(rows.link_at, workspace_id=point.workspace_id, seq=point.seq))
        if link is None:
            return AuditFault(point.seq, None, "cut")
        return None if link["hash"] == point.hash else AuditFault(point.seq, link["audit_id"], "rewritten")
