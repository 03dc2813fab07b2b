"""The inbound socket is never left alone: publishers that come and go would lose what they send."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from bench import messages, slow_disk
from bench.load import Load
from bench.servicing import newcomers_at
from bench.subjects import JOURNAL, JournaledRelay, Kind
from tests.conftest import Submitter, wait_for
from tests.support.waiting import SLOWED

# Seconds that each wait for the disk takes.
STALL = 2.0
# Milliseconds.
LONGEST = 100.0
# A machine that is busy with something else may keep the relay from running for so long, too. One
# that waits for its disk does so in each of these.
ATTEMPTS = 3


@pytest.fixture
def relay(context: zmq.Context[Any]) -> Iterator[JournaledRelay]:
    """A relay whose disk stalls. It has a journal: making one is a dozen stalls."""
    with Kind("relay", JOURNAL).start() as subject:
        assert isinstance(subject, JournaledRelay)
        submit(Submitter(context, subject.submit), 0)
        subject.program.stop()
        subject.launch(under=slow_disk.under(STALL))
        yield subject
        print(subject.program.output)


def submit(client: Submitter, number: int) -> float:
    """The seconds it takes until a message is acknowledged, and so on disk."""
    body = messages.single(400, messages.BESIDE + number)
    started = time.monotonic()
    assert client.submit(messages.TOPIC, body, timeout=60)["ok"]
    return time.monotonic() - started


def test_a_disk_that_stalls_keeps_no_newcomer_waiting_and_loses_nothing(
    relay: JournaledRelay, context: zmq.Context[Any]
) -> None:
    client = Submitter(context, relay.submit)
    with Load(relay, 400, rate=1000) as load:
        load.go()
        for attempt in range(1, 1 + ATTEMPTS):
            with newcomers_at(relay.inbound, relay.directory) as waits:
                assert submit(client, attempt) >= STALL
            # One after the other, all the time.
            assert len(waits) >= STALL * 1000 / LONGEST / SLOWED
            if max(waits) < LONGEST * SLOWED:
                break
        load.pause()
        assert max(waits) < LONGEST * SLOWED
        wait_for(lambda: (load.journaled or 0) >= load.sent + attempt, 60, "all of them on disk")
        heard = load.finish()
    assert heard["missing"] == 0
