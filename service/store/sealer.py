"""Sealing of texts: AES-256-GCM under a key of the user whose text it is (docs/adr/0029).

A sealed value is `MARK`, its owners with the ids of their keys, and in base64 a nonce and the ciphertext. Its column
and owners are bound to it as associated data. Values from before sealing was on have no `MARK`, and are read as such.
"""

from __future__ import annotations

import binascii
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.errors import KeyringUnavailable
from service.store.schema.sealed import SealedText, Stored

log = logging.getLogger("slipway.keyring")
MARK = "slipway.sealed:"
PLAIN = f"{MARK}plain:"  # before a plain text that begins with `MARK` itself
KEY_BYTES, NONCE_BYTES = 32, 12
Keys = Mapping[str, bytes]  # a user's keys by id, oldest first; none: they are destroyed
Kinds = Mapping[str, SealedText]  # types of sealed columns by name


class KeySource(Protocol):
    """Keys of users. Each method raises `KeyringUnavailable`."""

    def to_seal(self, user_id: str) -> Keys:
        """Return a user's keys, with a new one for a user who has never had any."""
        ...

    def to_open(self, wanted: Mapping[str, Collection[str]]) -> Mapping[str, Keys]:
        """Return the keys of users, `wanted` by id; of a user who has never had any, nothing."""
        ...


class Envelope(NamedTuple):
    """Sealed value, parsed: `owners` are pairs of a user and the id of their key."""

    head: str
    owners: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def parse(cls, value: str) -> Envelope:
        """Raise ValueError for a value that no `Sealer` has made."""
        head, _, body = value.removeprefix(MARK).partition(":")
        pairs = [part.split("/") for part in head.split("+")]
        return cls(head, tuple((user, key) for user, key in pairs), binascii.a2b_base64(body))


class Sealer:
    """Seals and opens values of a database. `keys`: None where sealing is off."""

    def __init__(self, keys: KeySource | None) -> None:
        self._keys = keys

    def values(self, table: sa.Table, values: Mapping[str, Any], owners: Iterable[str]) -> dict[str, Any]:
        """Seal the values of sealed columns under the newest keys of all `owners`; return all values.

        A text whose owner's keys are destroyed is not stored at all, but the column's stand-in. Raises
        `KeyringUnavailable`.
        """
        kinds, users = kinds_of(table), sorted(set(owners))
        return {
            name: Stored(self._close(kinds[name], value, users))
            if name in kinds and value is not None and value != ""
            else value
            for name, value in values.items()
        }

    def digest(self, user_id: str, text: str) -> str:
        """Return what a user's text is found by: where texts are sealed a digest, else the text itself."""
        return text if self._keys is None else sha256(f"{user_id}\0{text}".encode()).hexdigest()

    def open(self, rows: Sequence[dict[str, Any]], kinds: Kinds) -> None:
        """Open the sealed values of rows, in place: by the stand-in where a key is destroyed or the value damaged.

        Raises `KeyringUnavailable`, also for a key that the keyring has never had.
        """
        found = [
            (row, name, value)
            for row in rows
            for name in kinds
            if isinstance(value := row[name], str) and value.startswith(MARK)
        ]
        if not found:
            return
        parsed = [_parsed(value) for _, _, value in found]
        keys = self._keys_of(parsed)
        for (row, name, value), envelope in zip(found, parsed, strict=True):
            row[name] = (
                value.removeprefix(PLAIN) if envelope is None else _opened(envelope, kinds[name], keys)
            )

    def _close(self, kind: SealedText, value: Any, users: Sequence[str]) -> Any:
        if self._keys is None:
            return PLAIN + value if isinstance(value, str) and value.startswith(MARK) else value
        if not users:
            raise TypeError(f"A value of {kind.place} has no owner.")
        held = {user: self._keys.to_seal(user) for user in users}
        if not all(held.values()):
            return kind.stand_in
        newest = [list(held[user].items())[-1] for user in users]
        head = "+".join(f"{user}/{key_id}" for user, (key_id, _) in zip(users, newest, strict=True))
        nonce = os.urandom(NONCE_BYTES)
        content = _cipher([secret for _, secret in newest]).encrypt(
            nonce, kind.encode(value), _bound(kind, head)
        )
        return f"{MARK}{head}:{binascii.b2a_base64(nonce + content, newline=False).decode()}"

    def _keys_of(self, envelopes: Iterable[Envelope | None]) -> Mapping[str, Keys]:
        wanted: dict[str, set[str]] = {}
        for envelope in envelopes:
            for user, key_id in envelope.owners if envelope else ():
                wanted.setdefault(user, set()).add(key_id)
        if not wanted:
            return {}
        if self._keys is None:
            log.error("sealed_without_keyring")
            raise KeyringUnavailable("This is sealed, and KEYRING_URL is not set.")
        keys = self._keys.to_open(wanted)
        for user, ids in wanted.items():
            if user not in keys or (keys[user] and not keys[user].keys() >= ids):
                log.error("key_missing", extra={"user_id": user})
                raise KeyringUnavailable("The keyring has never had a key of this: it is another one.")
        return keys


@cache
def kinds_of(table: sa.Table) -> Kinds:
    """Return the sealed columns of a table."""
    return sealed_columns(table.c)


def sealed_columns(columns: Iterable[sa.ColumnElement[Any]]) -> Kinds:
    return {str(column.key): column.type for column in columns if isinstance(column.type, SealedText)}


def _parsed(value: str) -> Envelope | None:
    """Parse a value; None: it is plain. An envelope without owners is damaged."""
    if value.startswith(PLAIN):
        return None
    try:
        return Envelope.parse(value)
    except ValueError:
        return Envelope("", (), b"")


def _opened(envelope: Envelope, kind: SealedText, keys: Mapping[str, Keys]) -> Any:
    """Decrypt a value, or return the stand-in; a damaged one is logged."""
    secrets = [keys[user].get(key_id) for user, key_id in envelope.owners]
    if any(secret is None for secret in secrets):
        return kind.stand_in
    nonce, content = envelope.body[:NONCE_BYTES], envelope.body[NONCE_BYTES:]
    try:
        plain = _cipher([each for each in secrets if each]).decrypt(
            nonce, content, _bound(kind, envelope.head)
        )
    except (InvalidTag, ValueError, IndexError):
        log.error("sealed_value_damaged", extra={"column": kind.place, "owners": envelope.head})
        return kind.stand_in
    return kind.decode(plain)


def _bound(kind: SealedText, head: str) -> bytes:
    """Return the associated data: a value fits no other column and no other owner."""
    return f"{kind.place}:{head}".encode()


def _cipher(secrets: Sequence[bytes]) -> AESGCM:
    """Build the cipher of one key, or of several that are all needed."""
    if len(secrets) == 1:
        return AESGCM(secrets[0])
    return AESGCM(HKDF(SHA256(), KEY_BYTES, None, b"slipway sealed").derive(b"".join(secrets)))
