"""Credentials towards MCP servers: of the service or of a user, encrypted under SECRET_KEY in the database."""

from __future__ import annotations

from service.errors import Conflict
from service.infra.sealing import Seal
from service.store import mcp as rows
from service.store.database import Database

PURPOSE = b"slipway mcp credentials"
MAX_CREDENTIAL = 8192  # characters


class NoCredential(Exception):
    """Raised when a server needs a credential and there is none that can be read."""


class Credentials:
    """Credentials by server and user; the empty user is the service."""

    def __init__(self, db: Database, secret: str) -> None:
        self._db = db
        self._seal = Seal(secret, PURPOSE)

    def find(self, server: str, kind: str, user_id: str) -> str | None:
        """Return the credential; None where the server needs none. Raises `NoCredential`, `DatabaseUnavailable`."""
        if kind == "none":
            return None
        sealed = self._db.query(lambda tx: rows.credential(tx, server, user_id))
        secret = None if sealed is None else self._seal.open(sealed)
        if secret is None:
            raise NoCredential
        return secret

    def sealed(self, secret: str) -> str:
        """Encrypt a credential. Raises `Conflict` for one that no header may carry."""
        if not 0 < len(secret) <= MAX_CREDENTIAL or not secret.isascii() or not secret.isprintable():
            raise Conflict(f"A credential has 1 to {MAX_CREDENTIAL} printable ASCII characters.")
        return self._seal.close(secret)
