"""What a proxy says of its clients: believed from those that were named, as far as they saw it themselves."""

import pytest

from service.api.peers import Proxies, counted_address


def seen(peer: str, *headers: tuple[str, str], trusted=("10.0.0.0/8", "2001:db8::/32"), kind: str = "http"):
    """Return the refusal's status, or the client's address and scheme."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": kind, "client": (peer, 1), "scheme": "http" if kind == "http" else "ws", "headers": raw}
    problem = Proxies(trusted).seen_through(scope)
    return problem.status if problem else (scope["client"][0], scope["scheme"])


XFF, XFP = "x-forwarded-for", "x-forwarded-proto"


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ([], "10.0.0.1"),
        ([(XFF, "192.0.2.7")], "192.0.2.7"),
        ([(XFF, "192.0.2.7, 10.0.0.9")], "192.0.2.7"),
        ([(XFF, "203.0.113.1, 192.0.2.7")], "192.0.2.7"),
        ([(XFF, "127.0.0.1,192.0.2.7")], "192.0.2.7"),
        ([(XFF, "203.0.113.1"), (XFF, "192.0.2.7")], "192.0.2.7"),
        ([(XFF, "rubbish, 192.0.2.7")], "192.0.2.7"),
        ([(XFF, "192.0.2.7:4711")], "192.0.2.7"),
        ([(XFF, "[2001:db9::1]:4711")], "2001:db9::1"),
        ([(XFF, "::ffff:192.0.2.7")], "192.0.2.7"),
        ([(XFF, "10.1.1.1, 10.2.2.2")], "10.1.1.1"),
    ],
)
def test_the_last_hop_that_is_no_proxy_of_ours_is_the_client(headers, address):
    assert seen("10.0.0.1", *headers) == (address, "http")


@pytest.mark.parametrize("value", ["", "x", "192.0.2", "192.0.2.7,", "unknown", "_hidden", "1.2.3.4\t5"])
def test_what_is_no_address_is_refused(value):
    assert seen("10.0.0.1", (XFF, value)) == 400


@pytest.mark.parametrize("peer", ["192.0.2.1", "11.0.0.1", "::ffff:192.0.2.1", "fe80::1", ""])
def test_who_comes_past_the_proxy_is_refused(peer):
    assert seen(peer, (XFF, "10.0.0.1")) == 403


def test_this_machine_may_come_but_not_speak_for_others():
    assert seen("127.0.0.1", (XFF, "192.0.2.7"), (XFP, "https")) == ("127.0.0.1", "http")
    assert seen("::1") == ("::1", "http")


@pytest.mark.parametrize(
    ("value", "scheme"),
    [("https", "https"), ("HTTPS", "https"), ("http", "http"), ("https, http", "http"), ("", "http")],
)
def test_the_scheme_is_the_last_proxy_s_word(value, scheme):
    assert seen("10.0.0.1", (XFP, value))[1] == scheme
    assert seen("10.0.0.1", (XFP, value), kind="websocket")[1] == scheme.replace("http", "ws")


def test_without_proxies_nothing_is_believed():
    assert seen("192.0.2.1", (XFF, "10.0.0.1"), (XFP, "https"), trusted=()) == ("192.0.2.1", "http")


@pytest.mark.parametrize(
    ("client", "counted"),
    [
        ("127.0.0.1", ""), ("127.9.9.9", ""), ("::1", ""), ("::ffff:127.0.0.1", ""), ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("", ""),
    ],
)  # fmt: skip
def test_under_which_address_a_client_is_counted(client, counted):
    assert counted_address({"client": (client, 1)}) == counted
