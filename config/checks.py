"""Checks of single settings. Each returns the value or raises ValueError with the fault, never with the value."""

from __future__ import annotations

import limits
from pydantic import SecretStr


def rate_limit(text: str) -> str:
    """A rate limit as the `limits` library reads it, such as `60/minute` or `60/minute;1000/day`."""
    try:
        limits.parse_many(text)
    except ValueError as error:
        raise ValueError("is not a rate limit such as 60/minute") from error
    return text


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
