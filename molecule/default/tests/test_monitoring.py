"""What Fedora's checks read."""

from __future__ import annotations

import json

from testinfra.host import Host

SOCKET = "/run/fedmsg/monitoring-fedmsg-relay.socket"


def test_socket_path_and_mode(relay: Host) -> None:
    file = relay.file(SOCKET)
    assert file.is_socket
    assert (file.user, file.group, file.mode) == ("fedmsg", "fedmsg", 0o770)


def test_a_frame_has_what_the_checks_ask_for(relay: Host) -> None:
    frame = json.loads(
        relay.check_output(
            'python3 -c "import zmq; s = zmq.Context().socket(zmq.SUB);'
            f" s.setsockopt(zmq.SUBSCRIBE, b''); s.connect('ipc://{SOCKET}');"
            " assert s.poll(8000), 'no frame'; print(s.recv().decode())\""
        )
    )
    (consumer,), (producer,) = frame["consumers"], frame["producers"]
    assert consumer["name"] == "RelayConsumer"
    assert consumer["module"] == "fedmsg.consumers.relay"
    assert set(consumer) == {
        "name", "module", "topic", "initialized", "exceptions", "jsonify", "backlog",
        "headcount_out", "headcount_in", "times",
    }  # fmt: skip
    assert producer["name"] == "MonitoringProducer"
    assert set(producer) == {
        "name", "module", "initialized", "exceptions", "frequency", "now", "last_ran",
    }  # fmt: skip
    assert producer["frequency"] == 5
