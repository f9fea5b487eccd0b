"""`FETCH_HOSTS`: hosts of the operator's own network."""

from __future__ import annotations

import pytest

from config import ConfigError, load


def test_hosts_are_listed_with_or_without_a_port() -> None:
    assert (
        load({"FETCH_HOSTS": " wiki.example.com, 10.0.0.7:8080,"}).fetch_hosts
        == "wiki.example.com,10.0.0.7:8080"
    )


@pytest.mark.parametrize(
    "hosts", ["https://wiki.example.com", "wiki.example.com/path", "*.example.com", "a:b", "Wiki"]
)
def test_anything_else_is_refused(hosts: str) -> None:
    with pytest.raises(ConfigError, match="FETCH_HOSTS"):
        load({"FETCH_HOSTS": hosts})
