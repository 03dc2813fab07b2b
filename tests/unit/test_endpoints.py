"""An address that is bound on the wrong host, or not at all, makes a relay that nobody reaches."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from fedmsg_relay import endpoints, preflight
from fedmsg_relay.config import complete
from fedmsg_relay.daemon import ports
from fedmsg_relay.errors import ConfigError

from tests.support.ports import free_port


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp://busgateway01:9941", "busgateway01", 9941),
        ("tcp://*:4001", "*", 4001),
        ("tcp://[::1]:4001", "::1", 4001),
    ],
)
def test_parse(text: str, host: str, port: int) -> None:
    assert endpoints.parse(text, "k") == (text, host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "busgateway01:9941",
        "tcp://a",
        "tcp://a:",
        "tcp://a:x",
        "tcp://a:0",
        "tcp://:1",
        "tcp://a:65536",
        "udp://a:1",
        "ipc:///run/x",
        "tcp://a:\N{SUPERSCRIPT TWO}",
    ],
)
def test_a_malformed_endpoint_is_refused_with_its_key(text: str) -> None:
    with pytest.raises(ConfigError, match=r"relay_inbound.*is not an address"):
        endpoints.parse(text, "relay_inbound")


def test_only_addresses_of_this_machine_are_ours() -> None:
    # 192.0.2.0/24 is for documentation: nobody's.
    found = endpoints.local_addresses(
        ["tcp://192.0.2.1:1", "tcp://127.0.0.1:2", "tcp://127.0.0.1:3"], "k"
    )
    assert list(found) == ["tcp://127.0.0.1:2", "tcp://127.0.0.1:3"]


def test_no_address_of_this_machine_is_an_error_that_says_why() -> None:
    with pytest.raises(ConfigError) as caught:
        endpoints.local_addresses(["tcp://192.0.2.1:1", "tcp://no-such-host.invalid:1"], "k")
    text = str(caught.value)
    assert "k: no address of this machine" in text
    assert "tcp://192.0.2.1:1 is 192.0.2.1" in text
    assert "cannot resolve 'no-such-host.invalid'" in text
    assert socket.gethostname() in text


def test_a_name_stands_for_all_its_local_ipv4_addresses() -> None:
    assert "tcp://127.0.0.1:7" in endpoints.local_addresses(["tcp://localhost:7"], "k")


def test_a_wildcard_is_always_ours() -> None:
    assert list(endpoints.local_addresses(["tcp://*:7"], "k")) == ["tcp://*:7"]


@pytest.mark.parametrize(
    ("inbound", "outbound", "message"),
    [
        (["tcp://127.0.0.1:1"], ["tcp://127.0.0.1:1"], "both list tcp://127.0.0.1:1"),
        (["tcp://*:1"], ["tcp://127.0.0.1:1"], "are the same port"),
        (["tcp://localhost:1"], ["tcp://127.0.0.1:1"], "inbound and outbound are both"),
        ([], ["tcp://127.0.0.1:1"], "relay_inbound is empty"),
        (["tcp://127.0.0.1:1"], [], r"relay_outbound'\] is empty"),
    ],
)
def test_addresses_that_cannot_be_bound_together(
    inbound: list[str], outbound: list[str], message: str
) -> None:
    config = complete({"relay_inbound": inbound, "endpoints": {"relay_outbound": outbound}})
    with pytest.raises(ConfigError, match=message):
        preflight.relay_addresses(config)


def test_a_missing_outbound_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"endpoints\['relay_outbound'\] is missing"):
        preflight.relay_addresses(complete({"endpoints": {"other": "tcp://a:1"}}))


def test_a_name_that_is_loopback_here_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    # What /etc/hosts of a fresh Debian makes of the machine's own name.
    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        address = "127.0.1.1" if host == "busgateway01" else host
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    keys = {
        "relay_inbound": "tcp://busgateway01:1",
        "endpoints": {"relay_outbound": "tcp://127.0.0.1:2"},
    }
    config = complete(keys)
    found = preflight.warnings(config, preflight.relay_addresses(config))
    assert len(found) == 1
    assert "busgateway01 is 127.0.1.1 here" in found[0]


def test_the_holder_of_a_port_is_named() -> None:
    comm = Path("/proc/self/comm").read_text().strip()
    import os

    with socket.socket() as held:
        held.bind(("127.0.0.1", free_port()))
        held.listen()
        port = held.getsockname()[1]
        for address in ("127.0.0.1", "0.0.0.0", "*"):
            assert f"process {os.getpid()} ({comm}) of user" in ports.holder(address, port)
        assert ports.holder("127.0.0.2", port) == "another process"


def test_the_holder_of_an_ipv6_wildcard_port_is_named() -> None:
    import os

    with socket.socket(socket.AF_INET6) as held:
        held.bind(("::", free_port()))
        held.listen()
        assert f"process {os.getpid()} " in ports.holder("127.0.0.1", held.getsockname()[1])
