"""Issuer: its discovery document and public keys (JWKS), cached, and fetched again when a token names a new key.

One thread fetches, others wait for it. Fetched in the background every `FRESH_SECONDS`; while the issuer is away the
cached keys stay in use. Key ids that are not known cause one fetch in `PAUSE_SECONDS`, however many tokens have one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, RSAKey

from service.auth.oidc.refusals import Forged
from service.errors import IdentityUnavailable
from service.infra.http import AddressRefused, Answer, NoAnswer, SafeClient

log = logging.getLogger("slipway.auth")

FRESH_SECONDS = 600.0
PAUSE_SECONDS = 5.0  # between two fetches for key ids that are not known, and after one that failed
SECONDS = 3.0  # for one answer of the issuer
MOST_BYTES = 262_144  # of one answer
MOST_KEYS = 64
WAITING = 64  # threads that wait for one fetch; others are refused at once
_TYPES = {"R": "RSA", "P": "RSA", "E": "EC"}  # by an algorithm's first letter, but for EdDSA
_MIN_RSA_BITS = 2048
_AWAY = "The identity provider cannot be reached."


class PublicKey(NamedTuple):
    """Key of the JWKS. `key_id` and `algorithm` are None where the issuer names none."""

    key_id: str | None
    algorithm: str | None
    kind: str
    key: Key

    def fits(self, header: Mapping[str, Any]) -> bool:
        """Return whether a token with this header may be signed with this key."""
        wanted, algorithm = header.get("kid"), str(header.get("alg"))
        kind = "OKP" if algorithm.startswith("Ed") else _TYPES.get(algorithm[:1])
        return kind == self.kind and self.algorithm in (None, algorithm) and wanted in (None, self.key_id)


class Known(NamedTuple):
    """Discovery document and keys, as fetched together."""

    metadata: dict[str, Any]
    keys: tuple[PublicKey, ...]

    def fitting(self, header: Mapping[str, Any]) -> list[PublicKey]:
        return [key for key in self.keys if key.fits(header)]


class Issuer:
    """Issuer at `url`. Its own host may be private, as the operator chose it; others that it names must be public."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._own = SafeClient(allow_private=True, seconds=SECONDS)
        self._others = SafeClient(allow_private=False, seconds=SECONDS)
        self._known: Known | None = None
        self._stale_at = 0.0  # time.monotonic(), as is the next
        self._next_fetch = 0.0
        self._fetching = threading.Lock()
        self._places = threading.BoundedSemaphore(WAITING)

    def known(self) -> Known:
        """Return document and keys, cached if possible. Raises `IdentityUnavailable`."""
        known = self._known
        if known is None:
            return self._newer(None)
        if time.monotonic() >= self._stale_at and not self._fetching.locked():
            threading.Thread(target=self._renew, args=(known,), name="oidc", daemon=True).start()
        return known

    def newer(self, than: Known) -> Known:
        """Return document and keys fetched after `than`, for a key that is not in it.

        Raises `Forged`, whose answer is 503, while they cannot be fetched: the key may be new, or made up.
        """
        try:
            return self._newer(than)
        except IdentityUnavailable as error:
            raise Forged(error) from None

    def fetch(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: str = ""
    ) -> Answer:
        """Call an address of the issuer. Raises `IdentityUnavailable`, also for a status from 500 on."""
        own = urlsplit(self.url)
        try:
            parts = urlsplit(url)
        except ValueError:
            raise self.unusable("an address that is none") from None
        if own.scheme == "https" != parts.scheme:
            log.warning("identity_provider_away", extra={"reason": "an address without TLS"})
            raise IdentityUnavailable(_AWAY)
        client = self._own if parts.hostname == own.hostname else self._others
        sent = {"Accept": "application/json", **(headers or {})}
        try:
            answer = client.exchange(method, url, sent, body.encode(), most=MOST_BYTES)
        except (AddressRefused, NoAnswer) as error:
            log.warning("identity_provider_away", extra={"reason": str(error)})
            raise IdentityUnavailable(_AWAY, retry_after=PAUSE_SECONDS) from None
        if answer.status >= 500:
            log.warning("identity_provider_away", extra={"reason": f"status {answer.status}"})
            raise IdentityUnavailable(_AWAY, retry_after=PAUSE_SECONDS)
        return answer

    def _newer(self, than: Known | None) -> Known:
        with self._turn():
            known, now = self._known, time.monotonic()
            if known is not None and known is not than:
                return known  # another thread has fetched it meanwhile
            if now < self._next_fetch:
                raise IdentityUnavailable(_AWAY, retry_after=self._next_fetch - now)
            self._next_fetch = now + PAUSE_SECONDS
            self._known = known = self._load()
            self._stale_at = time.monotonic() + FRESH_SECONDS
            if than is None:
                self._next_fetch = 0.0  # the first key that is rotated right after a start is fetched at once
            return known

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for the thread that fetches, as long as one fetch takes. Raises `IdentityUnavailable`."""
        if not self._places.acquire(blocking=False):
            raise IdentityUnavailable(_AWAY)
        try:
            if not self._fetching.acquire(timeout=2 * SECONDS):
                raise IdentityUnavailable(_AWAY)
            try:
                yield
            finally:
                self._fetching.release()
        finally:
            self._places.release()

    def _renew(self, known: Known) -> None:
        self._stale_at = time.monotonic() + PAUSE_SECONDS  # of the next try, if this one fails
        try:
            self._newer(known)
        except IdentityUnavailable:
            return  # logged; the cached keys stay in use

    def _load(self) -> Known:
        """Fetch the discovery document, then the keys that it points to. Raises `IdentityUnavailable`."""
        metadata = self._json(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
        if metadata.get("issuer") != self.url:
            raise self.unusable("the discovery document is another issuer's")
        listed = self._json(str(metadata.get("jwks_uri"))).get("keys")
        keys = tuple(_usable(listed[:MOST_KEYS] if isinstance(listed, list) else []))
        if not keys:
            raise self.unusable("no public key that can be used")
        return Known(metadata, keys)

    def _json(self, url: str) -> dict[str, Any]:
        answer = self.fetch(url)
        try:
            found = orjson.loads(answer.body)
        except ValueError:
            found = None
        if answer.status != 200 or not isinstance(found, dict):
            raise self.unusable(f"no JSON object, status {answer.status}")
        return found

    def unusable(self, reason: str) -> IdentityUnavailable:
        """Log why an answer cannot be used; return the error to raise."""
        log.warning("identity_provider_away", extra={"reason": reason})
        return IdentityUnavailable("The identity provider's answer cannot be used.")


def _usable(listed: list[Any]) -> Iterator[PublicKey]:
    """Yield the keys that verify signatures: public, asymmetric, and strong enough. Others are skipped."""
    for data in listed:
        if not isinstance(data, dict) or data.get("use", "sig") != "sig" or "d" in data:
            continue
        kind, key_id, algorithm = data.get("kty"), data.get("kid"), data.get("alg")
        if kind not in ("RSA", "EC", "OKP") or not isinstance(key_id, str | None):
            continue
        material = {name: data[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in data}
        try:
            key = JWKRegistry.import_key(material)
            if isinstance(key, RSAKey) and key.raw_value.key_size < _MIN_RSA_BITS:
                continue
        except (JoseError, ValueError, TypeError, LookupError, AttributeError):
            continue
        yield PublicKey(key_id, algorithm if isinstance(algorithm, str) else None, kind, key)
