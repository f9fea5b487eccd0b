"""Refusal of tokens that nobody may have issued. Apart from the rest, as it loads no library."""

from __future__ import annotations

from service.errors import InvalidToken, SlipwayError


class Forged(Exception):
    """Token that its issuer is not known to have made, answered with `answer`, and counted against LIMIT_REFUSED."""

    def __init__(self, answer: SlipwayError | None = None) -> None:
        super().__init__()
        self.answer = answer or InvalidToken("The token is not valid, or no longer.")
