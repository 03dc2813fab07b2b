"""Who is let in, asked as libzmq asks: over real sockets, whoever knocked before."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
import zmq
from fedmsg_relay.checks.networks import Allowed, parse
from fedmsg_relay.daemon.access import Access
from fedmsg_relay.daemon.loop import Loop

from tests.conftest import ROOT, wait_for
from tests.support.ports import free_port


class Unsure(Allowed):
    """Cannot tell about some addresses, as where the kernel refuses to say."""

    def __init__(self, unsure: Iterable[str]) -> None:
        super().__init__([parse("127.0.0.4/32")], [])
        self._unsure = set(unsure)

    def __contains__(self, address: str) -> bool:
        if address in self._unsure:
            raise OSError(f"cannot tell about {address}")
        return super().__contains__(address)


def test_an_error_about_one_peer_keeps_no_other_out(context: zmq.Context[Any]) -> None:
    errors: list[str] = []
    loop = Loop(lambda: errors.append(str(sys.exc_info()[1])))
    access = Access(context, Unsure(["127.0.0.3"]), loop)
    router = context.socket(zmq.ROUTER)
    access.guard(router, "submit")
    port = free_port()
    router.bind(f"tcp://127.0.0.1:{port}")

    def ask(source: str) -> Any:
        dealer = context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.connect(f"tcp://{source}:0;127.0.0.1:{port}")
        dealer.send(b"")
        return dealer

    strangers = [ask("127.0.0.3") for _ in range(3)]

    def strangers_were_asked_about() -> bool:
        loop.turn(0.01)
        return len(errors) >= 6  # by the monitor, and by ZAP

    wait_for(strangers_were_asked_about)
    friend = ask("127.0.0.4")

    def arrived() -> bool:
        loop.turn(0.01)
        return bool(router.poll(0))

    wait_for(arrived, what="the one that is named")
    assert len(strangers) == 3 and not friend.closed
    router.recv_multipart()
    assert not router.poll(0), "a stranger got in"
    access.close()


@pytest.mark.parametrize("address", ["fe80::1", "fe80::1%lo", "fe80::1%eth9", "fe80::1%nowhere"])
def test_link_local_addresses_that_nobody_names_are_refused(address: str) -> None:
    assert address not in Allowed([parse("10.9.0.0/24")], ["::"])
    assert address in Allowed([parse("fe80::/10")], ["::"])


OWN = """
from fedmsg_relay.checks.networks import Allowed, parse
allowed = Allowed([parse("10.9.0.0/24")], ["*"])
assert "fe80::5%lo" in allowed
assert "fe80::6%lo" not in allowed
"""


def test_a_link_local_address_of_this_machine_is_its_own() -> None:
    """In a network of its own, where `lo` has one."""
    script = 'ip link set lo up && ip -6 addr add fe80::5/64 dev lo nodad && exec "$0" -c "$1"'
    subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, sys.executable, OWN],
        env={**os.environ, "PYTHONPATH": str(ROOT / "files")},
        check=True,
    )
