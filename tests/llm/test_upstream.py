"""Headers of an upstream: valid, missing and absurd values."""

from __future__ import annotations

import pytest

from service.llm.upstream import retry_after


@pytest.mark.parametrize("given", ["٧", "７", "²", "1_0", "inf", "1e3", "", "- 5"])
@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
def test_a_pause_is_in_ascii_digits(name: str, given: str) -> None:
    assert retry_after({name: given}) is None


def test_a_pause_with_a_fraction() -> None:
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250.5"}) == 0.2505
