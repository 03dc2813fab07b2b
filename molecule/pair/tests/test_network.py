"""The network between publishers and relays is cut, and healed."""

from __future__ import annotations

import bus
import pair
from listener import Listener
from testinfra.host import Host


def test_what_is_published_in_a_cut_arrives_when_it_is_healed(
    pkgs01: Host, listener: Listener
) -> None:
    with pair.both_loads(pkgs01) as loads:
        bus.wait_for(lambda: len(pair.numbered(listener, "one")) > 3, "some messages")
        with pair.cut(pkgs01, *pair.RELAYS):
            bus.wait_for(lambda: len(bus.spooled(pkgs01)) > 500, "a spool that fills", 30)
    for made in loads:
        assert all(run.rc == 0 for run in made.runs), made.runs
        assert any("spooled" in run.stderr for run in made.runs), made.runs
        # Each took as long as `timeout` says, or was told by one before it.
        assert all(run.seconds < 3.5 for run in loads[0].runs), loads[0].runs
    bus.wait_for(lambda: not bus.spooled(pkgs01), "an empty spool", 90)
    for made in loads:
        pair.assert_all_arrive(listener, made)
