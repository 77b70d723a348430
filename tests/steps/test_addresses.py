import ipaddress
import random
import socket

import pytest

from service.steps.addresses import RefusedAddress, is_global, parse_allowed, socket_factory

REFUSED = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16
169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.8 192.0.0.192 192.0.2.1 192.88.99.1
192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.250 240.0.0.1
255.255.255.255 :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:0:127.0.0.1 ::ffff:169.254.169.254
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2
2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:808:808:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254
fe80::1 fe80::1%1 fec0::1 ff02::1 ff0e::1 ::ffff:10.0.0.1 4000::1 64:ff9b::a00:1
"""
GLOBAL = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 172.15.0.1
172.32.0.1 192.0.1.1 192.167.1.1 198.17.1.1 223.255.255.255 2606:4700::1111 2a00:1450:4001::1
::ffff:8.8.8.8 64:ff9b::808:808
"""


@pytest.mark.parametrize("address", REFUSED.split())
def test_what_is_not_the_global_internet_is_refused(address: str) -> None:
    assert not is_global(ipaddress.ip_address(address))
    assert not parse_allowed(()).permits(address)


@pytest.mark.parametrize("address", GLOBAL.split())
def test_the_global_internet_is_permitted(address: str) -> None:
    assert parse_allowed(()).permits(address)


def test_nothing_that_python_knows_as_special_is_permitted() -> None:
    rng = random.Random(11)
    for _ in range(20_000):
        for ip in (
            ipaddress.IPv4Address(rng.getrandbits(32)),
            ipaddress.IPv6Address(rng.getrandbits(128)),
        ):
            if not ip.is_global or ip.is_multicast or ip.is_reserved:
                assert not is_global(ip), ip


def test_the_operator_opens_networks_addresses_and_hosts() -> None:
    allowed = parse_allowed(("10.1.0.0/16", "127.0.0.1", "fd00::/8", "[::1]", "Db.Internal."))
    assert allowed.hosts == {"db.internal"}
    for address in ("10.1.2.3", "127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::7", "::1"):
        assert allowed.permits(address), address
    for address in ("10.2.0.1", "127.0.0.2", "fc00::1", "::2"):
        assert not allowed.permits(address), address


@pytest.mark.parametrize(
    "entry", ["", " ", "http://x", "a b", "10.0.0.0/33", "10.0.0.1/8", "host:80", "*", "a/b", "1.2.3", "u@h"]
)
def test_what_is_neither_host_nor_network_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a host name"):
        parse_allowed((entry,))


def test_a_refused_address_gets_no_socket() -> None:
    make = socket_factory(parse_allowed(()))
    with pytest.raises(RefusedAddress):
        make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 80))).close()
