"""Cost of calls with a prompt from the provider's cache, and the reported savings."""

from __future__ import annotations

from service.types import NANO, Usage
from tests.usage.conftest import Make
from tests.usage.house import a_run


def test_cached_tokens_are_paid_at_their_own_tariff(make: Make) -> None:
    house = make(user_day=NANO)
    written = Usage(100, 50, cache_creation_input_tokens=300)
    read = Usage(100, 50, cache_read_input_tokens=300)
    assert house.spend(written) == 100 * 2_000 + 50 * 10_000 + 300 * 2_500
    assert house.spend(read, a_run("usr_bob")) == 100 * 2_000 + 50 * 10_000 + 300 * 100
    assert house.check().faults == []


def test_the_share_read_from_the_cache_is_counted_per_agent(make: Make) -> None:
    house = make()
    house.spend(Usage(100, 50, cache_creation_input_tokens=300))
    house.spend(Usage(100, 50, cache_read_input_tokens=300))
    text = house.metrics.render()[0].decode()
    for kind, tokens in (("cache_read", 300), ("cache_creation", 300), ("input", 200)):
        labels = f'agent="support",kind="{kind}",model="claude-sonnet-5-5"'
        assert f"slipway_tokens_total{{{labels}}} {tokens}.0" in text
