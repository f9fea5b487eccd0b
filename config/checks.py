"""Checks of single settings. Each returns the value or raises ValueError with the fault, never with the value."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from urllib.parse import urlsplit

import limits
from pydantic import SecretStr


def rate_limit(text: str) -> str:
    """A rate limit as the `limits` library reads it, such as `60/minute` or `60/minute;1000/day`."""
    try:
        parsed = limits.parse_many(text)
    except ValueError as error:
        raise ValueError("is not a rate limit such as 60/minute") from error
    if not all(1 <= rate.amount <= 10**9 and 1 <= rate.multiples <= 10**6 for rate in parsed):
        raise ValueError("is not a rate limit from 1 to a billion calls")
    return text


def broker_url(url: str) -> str:
    """A broker that Celery's worker can be held to: acknowledged late, sent again when a worker is lost."""
    schemes = ("amqp://", "amqps://", "redis://", "rediss://")
    if url and not url.startswith(schemes):
        raise ValueError(f"must begin with one of {', '.join(schemes)}")
    return url


def webhook_url(url: str) -> str:
    """An `http` or `https` URL without a user's name, or empty. Where it may lead is for the sender to say."""
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc):
        raise ValueError("is not an http or https URL without a user name")
    return url


def dollars(text: str) -> str:
    """An amount of dollars in decimals, such as `12.50`, or empty: none."""
    try:
        amount = Decimal(text or 0)
    except InvalidOperation as error:
        raise ValueError("is not an amount of dollars such as 12.50") from error
    if not amount.is_finite() or not 0 <= amount < 10**9 or amount != round(amount, 9):
        raise ValueError("is not an amount from 0 to below a billion dollars, in nano-dollars at the finest")
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
