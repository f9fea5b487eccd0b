"""Column types of texts and JSON that are sealed under a key of their owner: see `service.store.sealer`."""

from __future__ import annotations

import binascii
from typing import Any

import orjson
import sqlalchemy as sa

from service.text.packed import packed

ERASED = "[erased]"  # shown in place of a text whose key is destroyed


class Stored:
    """Value as the database stores it: sealed, or plain where nothing is."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class SealedText(sa.types.TypeDecorator[Any]):
    """Text column that takes only what `Transaction.sealed` returns, None or "": so no write forgets the owner.

    `place`: the column as `table.name`, to which its values are bound. `stand_in` replaces what cannot be decrypted.
    """

    impl = sa.Text
    cache_ok = True
    stand_in: Any = ERASED

    def __init__(self, place: str, **options: Any) -> None:
        super().__init__(**options)
        self.place = place

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        if isinstance(value, Stored):
            return value.value
        if value is None or value == "":
            return value
        raise TypeError(f"A value of {self.place} is not from `Transaction.sealed`.")

    def encode(self, value: Any) -> bytes:
        """Return the bytes to seal."""
        encoded: bytes = value.encode()
        return encoded

    def decode(self, content: bytes) -> Any:
        return content.decode()


class SealedPacked(SealedText):
    """Column of text that `service.text.packed` compressed."""

    cache_ok = True
    stand_in = packed(ERASED.encode())


class SealedBase64(SealedText):
    """Column of content in base64, which is sealed as its bytes; "" in place of what cannot be decrypted."""

    cache_ok = True
    stand_in = ""

    def encode(self, value: Any) -> bytes:
        return binascii.a2b_base64(value)

    def decode(self, content: bytes) -> Any:
        return binascii.b2a_base64(content, newline=False).decode()


class SealedJson(SealedText):
    """JSON column; a sealed value is a JSON string in it."""

    impl = sa.JSON  # type: ignore[assignment]
    cache_ok = True

    def __init__(self, place: str, instead: Any = None) -> None:
        super().__init__(place, none_as_null=True)
        self.stand_in = instead  # another name than the argument's, which SQLAlchemy would hash

    def encode(self, value: Any) -> bytes:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)

    def decode(self, content: bytes) -> Any:
        return orjson.loads(content)
