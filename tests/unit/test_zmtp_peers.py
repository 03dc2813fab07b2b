"""The tests' own peers are taken for what they say they are by libzmq."""

from __future__ import annotations

from typing import Any

import pytest
import zmq

from tests.support import zmtp_peers
from tests.support.ports import free_address
from tests.support.waiting import patient


@pytest.mark.parametrize("version", zmtp_peers.VERSIONS)
def test_each_version_subscribes_and_hears(version: str, context: zmq.Context[Any]) -> None:
    publisher = context.socket(zmq.XPUB)
    address = free_address()
    publisher.bind(address)
    peer = zmtp_peers.Peer(address, version).greet().subscribe(b"")
    assert publisher.poll(int(patient(20) * 1000))
    assert publisher.recv() == b"\x01"
    body = b"x" * 1000
    publisher.send_multipart([b"topic", body])
    assert next(peer.messages()) == [b"topic", body]
    peer.close()


@pytest.mark.parametrize("version", ("2.0", "3.0", "3.1"))
def test_only_what_it_subscribed_to(version: str, context: zmq.Context[Any]) -> None:
    publisher = context.socket(zmq.XPUB)
    address = free_address()
    publisher.bind(address)
    peer = zmtp_peers.Peer(address, version).greet().subscribe(b"b")
    assert publisher.poll(int(patient(20) * 1000))
    assert publisher.recv() == b"\x01b"
    for topic in (b"a", b"b"):
        publisher.send_multipart([topic, b""])
    assert next(peer.messages()) == [b"b", b""]
    peer.reset()
