"""relay_allow: what is a network, who is in it, and the account of those who are not."""

from __future__ import annotations

import time

import pytest
from fedmsg_relay import endpoints
from fedmsg_relay.checks import networks
from fedmsg_relay.checks.networks import LINES, NAMED, Allowed, Refusals, parse
from fedmsg_relay.config import complete
from fedmsg_relay.errors import ConfigError
from fedmsg_relay.preflight import check_addresses


def allowed(*texts: str, bound: tuple[str, ...] = ("192.0.2.1",)) -> Allowed:
    return Allowed([parse(text) for text in texts], bound)


@pytest.mark.parametrize(
    "text", ["10.5.1.0/16", "10.5.0.0/33", "busgateway01", "", "10.5", "2001:db8::1/32", "*"]
)
def test_what_is_no_network_is_named_with_its_key(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^config key 'relay_allow': '"):
        check_addresses(complete({"relay_allow": [text]}))


def test_a_single_network_may_be_a_string() -> None:
    config = complete({"relay_allow": "10.5.0.0/16"})
    assert [str(each) for each in networks.configured(config)] == ["10.5.0.0/16"]


@pytest.mark.parametrize("value", [5, {"a": 1}, [5], None])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="relay_allow"):
        complete({"relay_allow": value})


def test_without_networks_everybody_may() -> None:
    assert "203.0.113.5" in allowed()
    assert allowed().is_everybody


def test_networks_of_both_versions_and_single_addresses() -> None:
    found = allowed("10.5.0.0/16", "2001:db8:1::/48", "198.51.100.7", "2001:db8:2::7")
    for address in ("10.5.255.255", "2001:db8:1::9", "198.51.100.7", "2001:db8:2::7"):
        assert address in found
    for address in ("10.6.0.0", "2001:db8:3::9", "198.51.100.8", "2001:db8:2::8", "", "nobody"):
        assert address not in found


def test_an_ipv4_peer_of_a_socket_for_both_versions() -> None:
    assert "::ffff:10.5.1.2" in allowed("10.5.0.0/16")
    assert "::ffff:10.6.1.2" not in allowed("10.5.0.0/16")
    # Not the other way round: that would be all of IPv4.
    assert "10.5.1.2" not in allowed("::/0")


def test_a_link_local_peer_comes_with_its_interface() -> None:
    assert "fe80::1%eth0" in allowed("fe80::/10")


def test_the_relay_s_own_host_always_may() -> None:
    found = allowed("10.5.0.0/16", bound=("192.0.2.1", "2001:db8::1"))
    for address in ("127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"):
        assert address in found
    # Of loopback no more than that: another address there is nobody's probe.
    assert "127.0.0.2" not in found
    assert "192.0.2.2" not in found


def test_bound_to_all_addresses_its_own_host_is_all_addresses_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoints, "is_local", lambda address: address == "192.0.2.9")
    assert "192.0.2.9" in allowed("10.5.0.0/16", bound=("*",))
    assert "192.0.2.8" not in allowed("10.5.0.0/16", bound=("*",))
    assert "192.0.2.9" not in allowed("10.5.0.0/16")


def test_more_addresses_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "REMEMBERED", 3)
    found = allowed("10.5.0.0/16")
    for _ in range(2):
        assert [f"10.5.0.{n}" in found for n in range(9)] == [True] * 9
        assert [f"10.6.0.{n}" in found for n in range(9)] == [False] * 9


class TestRefusals:
    def test_an_address_is_named_once_a_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = time.time()
        refusals = Refusals()
        assert "10.0.0.9 to submit" in refusals.enter("submit", "10.0.0.9")
        assert [refusals.enter("submit", "10.0.0.9") for _ in range(5)] == [""] * 5
        monkeypatch.setattr(time, "time", lambda: now + 61)
        assert "so far: 7" in refusals.enter("inbound", "10.0.0.9")
        assert refusals.sides == {"submit": 6, "inbound": 1}

    def test_many_addresses_fill_neither_the_log_nor_the_memory(self) -> None:
        refusals = Refusals()
        lines = [refusals.enter("inbound", f"10.0.{n // 250}.{n % 250}") for n in range(1000)]
        said = [line for line in lines if line]
        assert len(said) == LINES
        assert "no more is said" in said[-1]
        assert "no more is said" not in said[-2]
        peers = refusals.state()["peers"]
        assert isinstance(peers, list)
        assert len(peers) == NAMED
        assert peers[-1]["address"] == "10.0.3.249"
        assert refusals.sides["inbound"] == 1000
