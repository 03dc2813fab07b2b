"""celery: a prefork pool whose processes are recycled and killed, and a worker that ends."""

from __future__ import annotations

from tests.support.waiting import wait_for

from .publishers import Publishers

TASKS = 1000


def test_prefork_under_load_and_restarts(publishers: Publishers) -> None:
    for name in ("broker", "control"):
        (publishers.bus.directory / name).mkdir()
    assert publishers.start("python", "order.py", "0", str(TASKS)).wait_for_end(60) == 0
    worker = publishers.start("celery", "--app", "tasks", "worker", "--pool", "prefork")

    def reach(count: int) -> None:
        worker.wait_for(lambda: len(publishers.returned()) >= count, f"{count} tasks", 40)

    reach(200)
    killed = publishers.bus.directory / "killed"
    killed.touch()
    worker.wait_for(lambda: not killed.exists(), "a task to be killed in", 40)
    reach(350)
    publishers.restart_relay()
    reach(500)
    assert worker.terminate(60) == 0
    worker = publishers.start("celery", "--app", "tasks", "worker", "--pool", "prefork")
    reach(700)
    publishers.kill_relay()
    # What a killed process was about, celery does not do again.
    wait_for(lambda: not any((publishers.bus.directory / "broker").iterdir()), 60, "no task left")
    assert worker.terminate(60) == 0
    publishers.check(TASKS - 3)
