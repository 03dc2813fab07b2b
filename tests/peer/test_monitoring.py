"""The monitoring socket: Fedora's checks cannot tell our relay from upstream's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zmq

from tests.support.waiting import wait_for

from .bus import Bus

COUNT = 30


def _frame(bus: Bus, path: Path) -> dict[str, Any]:
    """Publish a few messages; the frame that counts them."""
    wait_for(path.exists, what="the monitoring socket is there")
    with bus.socket(zmq.SUB) as monitor, bus.publisher() as publisher:
        monitor.subscribe(b"")
        monitor.connect(f"ipc://{path}")
        for number in range(COUNT):
            publisher.send(b"org", b'{"topic":"org","timestamp":1,"msg_id":"m","i":%d}' % number)
        while True:
            assert monitor.poll(15_000), "no frame within 15 seconds: it is due every five"
            [body] = monitor.recv_multipart()
            frame = json.loads(body)
            assert isinstance(frame, dict)
            if frame["consumers"][0]["headcount_in"] >= COUNT:
                return frame


def _types(value: Any) -> Any:
    """The value with the name of its type in place of each scalar; a list by its first element."""
    if isinstance(value, dict):
        return {key: _types(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_types(value[0])] if value else []
    return type(value).__name__


def test_frame_has_the_keys_and_types_of_upstreams(make_bus: Any, tmp_path: Path) -> None:
    paths = [tmp_path / "upstream.socket", tmp_path / "ours.socket"]
    buses = [
        make_bus(
            **{"moksha.monitoring.socket": f"ipc://{path}", "moksha.monitoring.socket.mode": "770"}
        )
        for path in paths
    ]
    relays = [buses[0].upstream_relay(), buses[1].relay()]
    upstream, ours = (_frame(bus, path) for bus, path in zip(buses, paths))
    assert _types(ours) == _types(upstream)
    for frame in (upstream, ours):
        [consumer] = frame["consumers"]
        assert consumer["headcount_out"] == consumer["headcount_in"] == len(consumer["times"])
    # What the checks look a consumer or a producer up by, and what they compare with limits.
    same = ("name", "module", "topic", "initialized", "jsonify", "exceptions", "backlog")
    for kind in ("consumers", "producers"):
        for key in set(same) & set(upstream[kind][0]):
            assert ours[kind][0][key] == upstream[kind][0][key], key
    assert ours["producers"][0]["frequency"] == upstream["producers"][0]["frequency"]
    modes = [path.stat().st_mode & 0o777 for path in paths]
    assert modes == [0o770, 0o770]
    assert [relay.exit_status for relay in relays] == [None, None]
