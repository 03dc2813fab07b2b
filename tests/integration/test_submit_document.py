"""docs/protocol.adoc: its client does what it says, and so do its replies."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from fedmsg_relay.config import DEFAULTS
from fedmsg_relay.publishing import delivery

from tests.conftest import ROOT, Bus, Listener
from tests.support.programs import Child
from tests.support.waiting import nothing_comes, patient

MakeListener = Callable[..., Listener]

DOCUMENT = (ROOT / "docs/protocol.adoc").read_text()


@pytest.fixture
def client(bus: Bus) -> list[str]:
    """The command line of the client as the document has it, in a place that has none of ours."""
    [source] = re.findall(r"\[source,python\]\n----\n(.*?)----\n", DOCUMENT, re.DOTALL)
    assert len(source.splitlines()) == 10
    path = bus.directory / "submit.py"
    path.write_text(source)
    bus.with_journal()
    return [sys.executable, "-I", str(path), bus.submit, "org.fedoraproject.dev.demo.hello", "Hi"]


def test_it_is_acknowledged_and_heard(bus: Bus, client: list[str], listener: MakeListener) -> None:
    receiving = listener(bus.relay())
    subprocess.run(client, check=True, timeout=patient(20))
    topic, body = receiving.receive()
    assert topic == b"org.fedoraproject.dev.demo.hello"
    message = json.loads(body)
    assert message["msg"] == {"log": "Hi"}
    assert bus.journaled() == [message["msg_id"]]


def test_it_submits_again_what_a_relay_that_hangs_has_taken(bus: Bus, client: list[str]) -> None:
    relay = bus.relay()
    with relay.paused():
        child = Child(client)
        # Long enough for it to have sent it again: it gives a relay two seconds.
        nothing_comes(5, lambda: child.poll() is not None, "its end")
    assert child.wait(20) == 0
    assert len(bus.journaled()) == 1


def test_it_waits_for_a_relay(bus: Bus, client: list[str]) -> None:
    child = Child(client)
    bus.relay()
    assert child.wait(20) == 0
    assert len(bus.journaled()) == 1


def test_it_ends_with_the_error_of_what_is_refused(bus: Bus, client: list[str]) -> None:
    bus.configure("z", relay_max_message_bytes=1000)
    bus.relay()
    result = subprocess.run(
        [*client[:-1], "x" * 1000], capture_output=True, text=True, timeout=patient(20)
    )
    assert result.returncode == 1
    assert "too large" in result.stderr
    assert bus.journaled() == []


def test_the_times_in_the_document_are_the_codes() -> None:
    text = re.sub(r"\s+", " ", DOCUMENT)
    assert f"the next one {delivery.STAGGER:g} seconds after one that has not answered" in text
    assert delivery.STALL == 1
    assert "go on to it from one that has not replied for a second" in text


def test_its_hosts_and_keys_exist() -> None:
    for key in re.findall(r"`((?:relay|publisher)_\w+|timeout)`", DOCUMENT):
        assert key in DEFAULTS, key
