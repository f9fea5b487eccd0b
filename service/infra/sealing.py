"""Sealing: encryption of secrets that are stored, under a key derived from SECRET_KEY (Fernet)."""

from __future__ import annotations

import base64
import hmac

from cryptography.fernet import Fernet, InvalidToken


class Seal:
    """Cipher for one purpose; each purpose has a key of its own."""

    def __init__(self, secret: str, purpose: bytes) -> None:
        key = hmac.digest(secret.encode(), purpose, "sha256")
        self._cipher = Fernet(base64.urlsafe_b64encode(key))

    def close(self, text: str) -> str:
        return self._cipher.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str | None:
        """Decrypt what `close` returned. None: under another SECRET_KEY, or changed."""
        try:
            return self._cipher.decrypt(sealed).decode()
        except InvalidToken:
            return None
