"""Policies of tools in `agent.yaml`: roles that may use a tool, and bounds of its arguments."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import ErrorDetails

_DOMAIN = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# No quotes, comments, routes or `%`, which mail servers read in several ways.
_MAIL = re.compile(r"[A-Za-z0-9._+'=~-]{1,64}@([A-Za-z0-9.-]{1,253})")
_AMOUNT = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
MAX_DIGITS = 40  # of an amount: a longer one is no amount


def _domain(text: str) -> str:
    """Return a domain in the form in which hosts are compared. Raises `ValueError`."""
    if not _DOMAIN.fullmatch(text.lower()):
        raise ValueError("must be a domain, such as example.org, or *.example.org for its subdomains")
    return text.lower()


def _limit(value: Any) -> Any:
    """Refuse a float, which YAML makes of 99.95 and which is not exactly that."""
    if type(value) is int or (isinstance(value, str) and _AMOUNT.fullmatch(value)):
        return value
    raise ValueError('must be a decimal in quotation marks, such as "100.00"')


Domain = Annotated[str, Field(max_length=253), AfterValidator(_domain)]
Amount = Annotated[Decimal, Field(ge=0), BeforeValidator(_limit)]
Roles = Annotated[tuple[Literal["user", "operator", "admin"], ...], Field(min_length=1)]


class ToolPolicy(BaseModel):
    """Policy of one tool of an agent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: Roles | None = Field(
        default=None, description="Roles of users whose runs may use the tool; none: all"
    )
    allowed_domains: dict[str, tuple[Domain, ...]] = Field(
        {}, description="By argument: domains of the mail addresses and URLs in it; `*.` for subdomains"
    )
    max_amount: dict[str, Amount] = Field(
        {}, description='By argument: largest amount, such as `"100.00"`; the smallest is its negative'
    )

    @property
    def bounded(self) -> Iterator[tuple[str, str]]:
        """Yield each bound with the name of its argument."""
        for bound in ("allowed_domains", "max_amount"):
            for argument in getattr(self, bound):
                yield bound, argument

    def faults(self, arguments: Mapping[str, Any]) -> list[ErrorDetails]:
        """List places in the arguments that are beyond a bound; the messages repeat no argument."""
        found = [
            _error((name, *place), f"only addresses at {', '.join(domains)} are allowed")
            for name, domains in self.allowed_domains.items()
            for place, value in _leaves(arguments.get(name))
            if not _is_at(value, domains)
        ]
        return found + [
            _error((name, *place), f"only amounts up to {limit} are allowed")
            for name, limit in self.max_amount.items()
            for place, value in _leaves(arguments.get(name))
            if not _is_within(value, limit)
        ]


def _error(place: tuple[str | int, ...], message: str) -> ErrorDetails:
    return {"type": "beyond_policy", "loc": place, "msg": message, "input": None}


def _leaves(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield each text, number and flag in a value, with its place; an argument that is left out has none."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield (*place, key), key
            yield from _leaves(inner, (*place, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*place, number))
    elif value is not None:
        yield place, value


def _is_at(value: Any, domains: Collection[str]) -> bool:
    """Return whether a text is one mail address or one http(s) URL at one of these domains.

    All else is not: a text that two readers may take for different addresses must not pass.
    """
    host = _host(value) if isinstance(value, str) else None
    return host is not None and any(
        host.endswith(domain[1:]) if domain.startswith("*.") else host == domain for domain in domains
    )


def _host(text: str) -> str | None:
    """Return the host of a URL or the domain of a mail address. None: the text is neither, or is ambiguous.

    Hosts outside ASCII are ambiguous: libraries encode some of them differently.
    """
    if mail := _MAIL.fullmatch(text):
        return mail[1].lower().removesuffix(".")
    if "://" not in text or not text.isprintable() or set(text) & set(" \\"):
        return None
    try:
        url = urlsplit(text)
        _ = url.port  # raises for one that is no number
    except ValueError:
        return None
    if url.scheme not in ("http", "https") or not url.netloc.isascii() or set(url.netloc) & set("@%["):
        return None
    return (url.hostname or "").removesuffix(".")


def _is_within(value: Any, limit: Decimal) -> bool:
    """Return whether a number, or a text that is one, is at most `limit` from zero."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > MAX_DIGITS:
        return False
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return False
    return amount.is_finite() and abs(amount) <= limit
