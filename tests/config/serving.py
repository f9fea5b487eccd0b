"""Settings of a serving environment, and the faults of others."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from config import ConfigError, load

SECRET = "a-secret-of-the-test-that-is-long-enough"
SERVING = {
    "SECRET_KEY": SECRET,
    "DATABASE_URL": "postgresql://slipway:db-password@db/slipway",
    "REDIS_URL": "redis://:redis-password@redis:6379/0",
    "ANTHROPIC_API_KEY": "sk-test",
}


def serving(environment: str, **changes: str) -> dict[str, str]:
    return {"APP_ENV": environment, **SERVING, **changes}


def faults(environ: dict[str, str]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(environ)
    return caught.value.faults


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
