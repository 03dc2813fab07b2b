"""Out of the spool over a slow line: what is large arrives, and holds up nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fedmsg_relay import config as global_config
from fedmsg_relay.publishing import delivery, drain, spooled
from fedmsg_relay.publishing.spool import encoded

from tests.conftest import Bus
from tests.support.ports import free_address
from tests.support.proxy import Proxy
from tests.support.waiting import wait_for

LARGE = spooled.LARGE + 200_000


def put(spool: Path, number: int, size: int = 0) -> None:
    body = {"topic": "t", "timestamp": 1, "msg_id": f"id-{number}", "msg": {"text": "x" * size}}
    (spool / f"{number:020d}-0").write_bytes(encoded(b"t", json.dumps(body).encode()))


def test_time_grows_with_progress_and_the_rest_goes_first(bus: Bus, spool: Path) -> None:
    """At this rate it takes several times as long as a relay may take that does nothing."""
    put(spool, 1, LARGE)
    for number in (2, 3):
        put(spool, number)
    bus.relay()
    with Proxy(bus.submit, rate=LARGE / 4, bound=1 << 14) as line:
        bus.configure("z", relay_submit=[line.endpoint], relay_inbound=[free_address()])
        result = bus.tool("logger", "--drain", "--timeout", "1")
        assert (result.returncode, result.stderr) == (0, "")
        assert line.accepted == 1  # it was not begun anew
    assert bus.journaled() == ["id-2", "id-3", "id-1"]


def test_one_that_never_arrives_holds_up_no_other(
    bus: Bus, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: here the line ends whenever half of it has passed."""
    put(spool, 1, 4 * LARGE)
    put(spool, 2, LARGE)
    bus.relay()
    with Proxy(bus.submit, bound=1 << 14, most=2 * LARGE) as line:
        bus.configure("z", relay_submit=[line.endpoint], relay_inbound=[free_address()])
        monkeypatch.setattr(delivery, "SLOWEST_OF_ALL", 10_000_000)
        config = global_config.load(str(bus.config_directory))
        # As its timer has it, until the small one is there: a busy machine is slower than the line.
        drained = wait_for(
            lambda: one if (one := drain.drain(config, 0.5)).delivered else None,
            what="the one that does arrive",
        )
        assert (drained.delivered, drained.failed) == (1, 0)
        assert drained.left is not None
    assert bus.journaled() == ["id-2"]
    assert [path.name for path in spool.iterdir() if path.is_file()] == [f"{1:020d}-0"]
