"""Programs of one process that publish many at a time: loops of asyncio and gevent, threads."""

from __future__ import annotations

import pytest

from .publishers import Publishers

MESSAGES = 1000


@pytest.mark.parametrize(
    "program",
    ["coroutines", "threads_of_a_loop", "threads", "processes", "greenlets", "greenlets late"],
)
def test_over_restarts_of_the_relay(publishers: Publishers, program: str) -> None:
    name, *options = program.split()
    running = publishers.start("python", f"{name}.py", str(MESSAGES), *options)

    def reach(count: int) -> None:
        running.wait_for(lambda: len(publishers.returned()) >= count, f"{count} messages", 40)

    reach(200)
    publishers.restart_relay()
    reach(500)
    publishers.kill_relay()
    assert running.wait_for_end(60) == 0, running.output
    publishers.check(MESSAGES)
