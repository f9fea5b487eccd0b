"""Filters of relayed texts after a policy: what goes in gets placeholders, which become values again on the way out."""

from __future__ import annotations

from service.guardrails.effort import Effort
from service.guardrails.filter import Matches, Refused, TextFilter
from service.guardrails.policy import SideSpec
from service.guardrails.vault import Restorer, Vault


class Inward:
    """Filters of what a client sends to a model; values that are redacted are kept in `vault`.

    Blocks that the model has signed pass: the provider wrote them, and takes them unchanged only.
    """

    signed = True

    def __init__(self, side: SideSpec, vault: Vault) -> None:
        self._side, self._vault, self._effort = side, vault, Effort()
        self.acted = Matches()

    def text(self) -> FilteredText:
        return FilteredText(TextFilter(self._side, self._vault, self._effort), self.acted)

    thought = argument = text

    def again(self) -> Inward:
        return Inward(self._side, self._vault)


class Outward:
    """Filters of what a model answers; placeholders of `vault` become the client's own values again.

    Not in thinking: its signature is of what the model wrote.
    """

    signed = False

    def __init__(self, side: SideSpec, vault: Vault) -> None:
        self._side, self._vault, self._effort = side, vault, Effort()
        self.acted = Matches()

    def text(self) -> FilteredText:
        return FilteredText(TextFilter(self._side, effort=self._effort), self.acted, Restorer(self._vault))

    def thought(self) -> FilteredText:
        return FilteredText(TextFilter(self._side, effort=self._effort), self.acted)

    argument = text

    def again(self) -> Outward:
        return Outward(self._side, self._vault)


class FilteredText:
    """One text: filtered, then with values for placeholders."""

    def __init__(self, text: TextFilter, acted: Matches, restorer: Restorer | None = None) -> None:
        self._filter, self._acted, self._restorer = text, acted, restorer

    @property
    def found(self) -> int:
        return sum(one.count for one in self._filter.findings)

    def feed(self, text: str) -> str:
        try:
            return self._restored(self._filter.feed(text))
        except Refused as refused:
            raise self._refused(refused) from None

    def close(self) -> str:
        try:
            return self._restored(self._filter.close()) + self._rest()
        except Refused as refused:
            raise self._refused(refused) from None

    def count(self) -> None:
        self._acted.count(self._filter.findings)

    def _restored(self, text: str) -> str:
        return text if self._restorer is None else self._restorer.feed(text)

    def _rest(self) -> str:
        return "" if self._restorer is None else self._restorer.close()

    def _refused(self, refused: Refused) -> Refused:
        """Return a refusal with the text before it as it may go on."""
        return Refused(refused.kind, self._restored(refused.before) + self._rest())
