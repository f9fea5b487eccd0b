"""Values of the types by which an SDK describes its requests, and values that no such type allows."""

from __future__ import annotations

import random
import types
import typing
from collections import abc
from typing import Any, Literal, Union

import typing_extensions

STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 2**63, 10**30, "", " ", "x" * 2_000, "a\0b", "\u202e"),
    *([], {}, [[]], {"": None}, [None], {"type": "text"}, {"type": 7}),
)
TEXTS = ("Hello", "What is 17 * 23?", "a b", "1", "\u00e9\U0001f600", "get_weather", "auto", "7/8")


class Sampler:
    """Values for annotations of one SDK's parameters, from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def value(self, kind: Any, depth: int = 0) -> Any:
        """A value of the type."""
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if typing_extensions.is_typeddict(kind):
            return self.fields(kind, depth)
        if origin in (typing.Required, typing.NotRequired, typing.Annotated):
            return self.value(args[0], depth)
        if origin is Literal:
            return self.rng.choice(args)
        if origin in (Union, types.UnionType):
            return self.value(self.rng.choice(args), depth)
        if origin is dict or origin is abc.Mapping or kind is dict:
            return {self.rng.choice(TEXTS): self.value(args[1] if args else str, depth + 1)}
        if origin in (list, abc.Iterable, abc.Sequence):
            most = 3 if depth < 4 else 1
            return [self.value(args[0], depth + 1) for _ in range(self.rng.randrange(most + 1))]
        return self._plain(kind)

    def fields(self, kind: Any, depth: int = 0, chance: float = 0.3) -> dict[str, Any]:
        """A value of a typed dictionary: all that it requires, and some of what it allows."""
        found = {}
        for name, annotation in typing.get_type_hints(kind, include_extras=True).items():
            if name in kind.__required_keys__ or (depth < 5 and self.rng.random() < chance):
                found[name] = self.value(annotation, depth + 1)
        return found

    def spoiled(self, value: Any) -> Any:
        """The value with one part of it replaced, left out, or joined by a field that there is not."""
        holders = list(_holders(value))
        holder = self.rng.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        deed = self.rng.randrange(4)
        if not keys or (deed == 0 and isinstance(holder, dict)):
            if isinstance(holder, dict):
                holder[self.rng.choice(("no_such_field", "x-y", "", "0", "a/b~c"))] = self.rng.choice(STRANGE)
            else:
                holder.append(self.rng.choice(STRANGE))
        elif deed == 1:
            del holder[self.rng.choice(keys)]
        else:
            holder[self.rng.choice(keys)] = self.rng.choice(STRANGE)
        return value

    def _plain(self, kind: Any) -> Any:
        if kind is type(None):
            return None
        if kind is bool:
            return self.rng.random() < 0.5
        if kind is int:
            return self.rng.choice((0, 1, 7, 100, 4_096))
        if kind is float:
            return self.rng.choice((0.0, 0.5, 1.0))
        return self.rng.choice(TEXTS)


def _holders(value: Any) -> abc.Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for part in list(value.values() if isinstance(value, dict) else value):
            yield from _holders(part)
