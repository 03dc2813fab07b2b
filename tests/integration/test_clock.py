"""The relay host's clock stepped: by libfaketime, in a relay that runs."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any, Callable

import pytest
import zmq

from tests.conftest import Bus, Listener, Process, Submitter, numbered, wait_for

MakeListener = Callable[..., Listener]


def libfaketime() -> str:
    for pattern in ("*/faketime/libfaketime.so.1", "faketime/libfaketime.so.1"):
        for directory in ("/usr/lib", "/usr/lib64"):
            for found in Path(directory).glob(pattern):
                return str(found)
    raise FileNotFoundError("libfaketime.so.1; tools/setup/packages installs it")


class Clock:
    """The wall clock of a process, which can be stepped; its monotonic clock goes on."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.step(0)
        self.environment: dict[str, Any] = {
            "LD_PRELOAD": libfaketime(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, seconds: int) -> None:
        """Be so many seconds ahead of the real time, or behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}s\n")
        new.rename(self._file)


@pytest.mark.parametrize("seconds", [-3600, 3600, -30 * 24 * 3600])
def test_a_step_loses_nothing_and_hides_nothing(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener, seconds: int
) -> None:
    clock = Clock(bus.directory)
    bus.with_journal(relay_journal_max_age=7200)
    relay = bus.relay(**clock.environment)
    listening = listener(relay)
    client = Submitter(context, bus.submit)
    for number in range(100):
        assert client.submit(*numbered(number)) == _ack(number)
    stepped_at = _last_received(bus)
    clock.step(seconds)
    for number in range(100, 200):
        assert client.submit(*numbered(number)) == _ack(number)
    # Known as before, and nothing was taken for too old.
    assert [client.submit(*numbered(n)) for n in (0, 99, 150)] == [_ack(n) for n in (0, 99, 150)]
    assert bus.journaled() == [f"id-{number}" for number in range(200)]
    got = [json.loads(listening.receive()[1])["msg"]["n"] for _ in range(200)]
    assert got == list(range(200))
    # Whoever asks for all since the step gets all since the step.
    with sqlite3.connect(bus.journal) as db:
        since = db.execute(
            "SELECT count(*) FROM message WHERE received >= ? AND seq > 100", (stepped_at,)
        ).fetchone()
    assert since == (100,)
    assert relay.terminate() == 0
    again = bus.relay(ready=False, **clock.environment)
    wait_for(lambda: listening.socket.poll(0) == 0 and "] ready" in again.output)
    assert Submitter(context, bus.submit).submit(*numbered(42)) == _ack(42)


@pytest.mark.parametrize(("seconds", "said"), [(7200, "behind"), (-60, "ahead of"), (3, None)])
def test_the_probe_compares_clocks(bus: Bus, seconds: int, said: str | None) -> None:
    clock = Clock(bus.directory)
    bus.with_journal()
    bus.relay(**clock.environment)
    clock.step(seconds)
    result = bus.probe()
    if said is None:
        assert result.returncode == 0, result.stdout
        return
    assert result.returncode == 1, result.stdout
    assert result.stdout.startswith("FEDMSG WARNING - ")
    # The clocks are read one after the other.
    pattern = r"; this host's clock is (\d+) s (behind|ahead of) the relay's \|"
    found = re.search(pattern, result.stdout)
    assert found, result.stdout
    assert (abs(int(found[1]) - abs(seconds)) <= 2, found[2]) == (True, said)


def _ack(number: int) -> dict[str, object]:
    return {"ok": True, "seq": number + 1, "msg_id": f"id-{number}"}


def _last_received(bus: Bus) -> float:
    with sqlite3.connect(bus.journal) as db:
        return float(db.execute("SELECT max(received) FROM message").fetchone()[0])


def test_the_clock_of_these_tests_does_step(bus: Bus, context: zmq.Context[Any]) -> None:
    clock = Clock(bus.directory)
    bus.with_journal()
    relay: Process = bus.relay(**clock.environment)
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(0))["ok"]
    before = _last_received(bus)
    clock.step(7200)
    assert client.submit(*numbered(1))["ok"]
    assert 7190 < _last_received(bus) - before < 7300
    assert relay.is_running()
