"""Special-purpose addresses, whatever the table of the Python that runs this says."""

from __future__ import annotations

import pytest

from service.infra.ip_ranges import SPECIAL_V4, SPECIAL_V6, is_public

METADATA = [
    "169.254.169.254",  # AWS, Google, Azure, DigitalOcean, IBM, OpenStack
    "169.254.170.2",  # AWS, of containers
    "168.63.129.16",  # Azure's WireServer
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
    "fd00:ec2::254",  # AWS
    "fd20:ce::254",  # Google
]
SPECIAL = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.8.8.8",
    "172.31.255.255",
    "192.0.0.9",  # globally reachable, and no web server
    "192.0.0.170",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.255.255",
    "192.175.48.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # IPv4-compatible
    "::ffff:10.0.0.1",  # IPv4-mapped
    "::ffff:93.184.216.34",
    "::ffff:0:10.0.0.1",  # IPv4-translated
    "64:ff9b::10.0.0.1",  # NAT64
    "64:ff9b::93.184.216.34",
    "64:ff9b:1::1",
    "100::1",  # discard only
    "100:0:0:1::1",
    "2001::1",  # Teredo
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:a00:1::1",  # 6to4 of 10.0.0.1
    "2002:5db8:d822::1",
    "2620:4f:8000::1",
    "3ffe::1",
    "3fff::1",
    "3fff:fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1111%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "192.88.98.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "2a00:1450:4001:831::200e",
]


@pytest.mark.parametrize("address", METADATA + SPECIAL)
def test_special_addresses_are_nobodys(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_their_neighbours_are_public(address: str) -> None:
    assert is_public(address)


def test_ranges_include_both_ends() -> None:
    for block in (*SPECIAL_V4, *SPECIAL_V6):
        assert not is_public(str(block[0])) and not is_public(str(block[-1])), block
