"""What a listener of another host has missed, it can read from both relays."""

from __future__ import annotations

import uuid

import bus
import pair
from testinfra.host import Host


def test_tail_since_has_the_messages_of_both_relays(app01: Host, pkgs01: Host) -> None:
    texts = [uuid.uuid4().hex for _ in pair.RELAYS]
    for relay, text in zip(pair.RELAYS, texts):
        run = pair.publish(pkgs01, text, relay)
        assert (run.rc, f"acked by tcp://{relay}:2004" in run.stderr) == (0, True), run
    operator = bus.host("app01", root=False)
    done = operator.run("timeout --signal=INT 5 fedmsg-tail --since 10m")
    for text in texts:
        assert done.stdout.count(text) == 1, done.stdout + done.stderr
    assert done.stdout.index(texts[0]) < done.stdout.index(texts[1])
