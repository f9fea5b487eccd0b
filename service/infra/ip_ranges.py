"""Special-purpose IP ranges, blocked for user-supplied URLs.

A table of its own, as Python's `ipaddress` is only as new as the interpreter: 3.11.7 calls 168.63.129.16, 192.0.0.192
and 3fff::1 global. Sources, as of November 2026:
https://www.iana.org/assignments/iana-ipv4-special-registry
https://www.iana.org/assignments/iana-ipv6-special-registry
https://www.iana.org/assignments/ipv6-address-space (of which only 2000::/3 is global unicast)

Globally reachable entries are blocked too: a relay or an anycast service is no web server.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network, ip_address, ip_network

# Outside of it: loopback, mapped IPv4, NAT64, unique and site-local, multicast, …
GLOBAL_V6 = IPv6Network("2000::/3")
SPECIAL_V4 = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private use
        "100.64.0.0/10",  # shared address space; 100.100.100.200 is Alibaba's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's WireServer: in no registry, reachable from every virtual machine
        "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata service of most clouds
        "172.16.0.0/12",  # private use
        "192.0.0.0/24",  # IETF protocol assignments; 192.0.0.192 is Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112-v4
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relay anycast, deprecated
        "192.168.0.0/16",  # private use
        "192.175.48.0/24",  # AS112, direct delegation
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and limited broadcast
    )
)
SPECIAL_V6 = tuple(
    ip_network(block)
    for block in (
        "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, AMT, AS112, ORCHID, drones
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: routes to the embedded IPv4 address
        "2620:4f:8000::/48",  # AS112, direct delegation
        "3ffe::/16",  # 6bone, returned
        "3fff::/20",  # documentation
    )
)


def is_public(address: str) -> bool:
    """Return whether an IP address is public. Raises `ValueError` for an invalid one."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return not any(ip in block for block in SPECIAL_V4)
    return ip.scope_id is None and ip in GLOBAL_V6 and not any(ip in block for block in SPECIAL_V6)
