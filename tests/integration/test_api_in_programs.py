"""`fedmsg_relay.publish()` where a program forks, has threads, is signalled, or is at its end.

Each program ends by itself, and what it publishes is in the relay's journal, or in the spool.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bus, environment
from tests.integration.test_publishing import spooled
from tests.support import programs

# Seconds: some of these programs once ran for ever.
PATIENCE = 60


def run(bus: Bus, program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, str(bus.config_directory)]
    done = programs.run(command, cwd=bus.directory, env=environment(**variables), timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done


def relayed(bus: Bus) -> list[dict[str, Any]]:
    """The messages in the journal, in order."""
    with closing(sqlite3.connect(bus.journal)) as database:
        bodies = database.execute("SELECT body FROM message ORDER BY seq")
        return [json.loads(body) for (body,) in bodies]


INIT = """
import os, sys
import fedmsg_relay
fedmsg_relay.init(config_filename=sys.argv[1], environment="stg")
"""


def _that_forks_in_an_import(init: bool, number: int) -> str:
    """A program that forks while another thread imports the `number`th of all modules that its
    message needs. The child publishes, too; one that hangs is ended, which is an error."""
    return (
        "import os, signal, sys, threading, time\n"
        "import fedmsg_relay\n"
        f"if {init}: fedmsg_relay.init(config_filename=sys.argv[1])\n"
        "to_fork = threading.Event()\n"
        "imported = []\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if threading.current_thread() is threading.main_thread(): return\n"
        "        imported.append(name)\n"
        f"        if len(imported) == {number + 1}:\n"
        "            to_fork.set()\n"
        "            time.sleep(0.5)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "def publish(n):\n"
        "    fedmsg_relay.publish('t', {'n': n}, 'm', config_filename=sys.argv[1])\n"
        "def first():\n"
        "    publish(1)\n"
        "    to_fork.set()\n"
        "thread = threading.Thread(target=first)\n"
        "thread.start()\n"
        "to_fork.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(40)\n"
        "    publish(2)\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0, imported\n"
        "thread.join()\n"
    )


class TestFork:
    @pytest.mark.parametrize("before", ["", "fedmsg_relay.publish('parent', {}, 'm')\n"])
    @pytest.mark.parametrize("destroyed", ["", "fedmsg_relay.destroy()\n"])
    def test_a_child_has_what_init_was_given(
        self, bus: Bus, spool: Path, before: str, destroyed: str
    ) -> None:
        bus.relay()
        program = (
            INIT
            + before
            + destroyed
            + (
                "os.chdir('/')\n"
                "child = os.fork()\n"
                "fedmsg_relay.publish('child' if child == 0 else 'parent', {}, 'm')\n"
                "child and os.waitpid(child, 0)\n"
            )
        )
        run(bus, program)
        topics = sorted(message["topic"] for message in relayed(bus))
        parents = ["org.fedoraproject.stg.m.parent"] * (1 + bool(before))
        assert topics == ["org.fedoraproject.stg.m.child", *parents]

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_a_pool_of_multiprocessing(self, bus: Bus, spool: Path, method: str) -> None:
        bus.relay()
        (bus.directory / "work.py").write_text(
            "import sys, fedmsg_relay\n"
            "def begin(path): fedmsg_relay.init(config_filename=path)\n"
            "def publish(n): fedmsg_relay.publish('t', {'n': n}, 'm'); return n\n"
        )
        program = (
            "import multiprocessing, sys, work\n"
            "if __name__ == '__main__':\n"
            f"    context = multiprocessing.get_context({method!r})\n"
            "    with context.Pool(3, work.begin, (sys.argv[1],)) as pool:\n"
            "        assert pool.map(work.publish, range(50)) == list(range(50))\n"
        )
        run(bus, program, PYTHONPATH=f"{environment()['PYTHONPATH']}:{bus.directory}")
        assert sorted(message["msg"]["n"] for message in relayed(bus)) == list(range(50))

    def test_while_other_threads_publish(self, bus: Bus, spool: Path) -> None:
        bus.relay()
        program = INIT + (
            "import threading\n"
            "stop = threading.Event()\n"
            "sent = [0, 0]\n"
            "def publish(which):\n"
            "    while not stop.is_set():\n"
            "        fedmsg_relay.publish('thread', {}, 'm')\n"
            "        sent[which] += 1\n"
            "threads = [threading.Thread(target=publish, args=(which,)) for which in (0, 1)]\n"
            "for thread in threads: thread.start()\n"
            "for n in range(30):\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        fedmsg_relay.publish('child', {'n': n}, 'm')\n"
            "        os._exit(0)\n"
            "    assert os.waitpid(child, 0)[1] == 0\n"
            "stop.set()\n"
            "for thread in threads: thread.join()\n"
            "print(sum(sent))\n"
        )
        sent = int(run(bus, program).stdout)
        messages = relayed(bus)
        children = [m["msg"]["n"] for m in messages if m["topic"].endswith("child")]
        assert children == list(range(30))
        assert len(messages) - len(children) == sent
        assert len({message["msg_id"] for message in messages}) == len(messages)

    @pytest.mark.parametrize("number", range(4))
    @pytest.mark.parametrize("init", [False, True])
    def test_while_another_thread_imports(
        self, bus: Bus, spool: Path, init: bool, number: int
    ) -> None:
        bus.relay()
        run(bus, _that_forks_in_an_import(init, number))
        assert sorted(message["msg"]["n"] for message in relayed(bus)) == [1, 2]

    @pytest.mark.parametrize("number", range(4))
    @pytest.mark.parametrize("init", [False, True])
    def test_while_another_thread_imports_what_spools(
        self, bus: Bus, spool: Path, init: bool, number: int
    ) -> None:
        bus.configure("z", timeout=0.2)
        run(bus, _that_forks_in_an_import(init, number))
        assert sorted(message["msg"]["n"] for message in spooled(spool)) == [1, 2]

    @pytest.mark.parametrize("number", range(4))
    @pytest.mark.parametrize("init", [False, True])
    def test_while_another_thread_imports_libzmq(self, bus: Bus, init: bool, number: int) -> None:
        relay = bus.relay()
        run(bus, _that_forks_in_an_import(init, number))
        relay.terminate()
        relay.wait_for_line("2 relayed")

    def test_children_of_a_relay_that_does_not_acknowledge(self, bus: Bus) -> None:
        """multiprocessing ends a child without what runs at exit, where a message may wait."""
        relay = bus.relay()
        program = (
            "import multiprocessing, sys, fedmsg_relay\n"
            "def publish(n): fedmsg_relay.publish('t', {'n': n}, 'm')\n"
            "fedmsg_relay.init(config_filename=sys.argv[1])\n"
            "fedmsg_relay.publish('t', {'n': 99}, 'm')\n"
            "context = multiprocessing.get_context('fork')\n"
            "children = [context.Process(target=publish, args=(n,)) for n in range(10)]\n"
            "for child in children: child.start()\n"
            "for child in children: child.join()\n"
        )
        run(bus, program)
        relay.terminate()
        relay.wait_for_line("11 relayed")


EXIT = """
import atexit, sys
def at_the_end():
    import fedmsg_relay
    fedmsg_relay.publish("end", {}, "m", config_filename=sys.argv[1])
atexit.register(at_the_end)
"""


class TestExit:
    """What runs at exit runs in the opposite order of its registration."""

    @pytest.mark.parametrize(
        "after",
        ["", "import fedmsg_relay.publishing.api\n", "at_the_end()\n"],
        ids=["imported at exit", "registered before ours", "published before"],
    )
    @pytest.mark.parametrize("relay", ["acknowledges", "does not", "is not there"])
    def test_a_function_that_publishes(
        self, bus: Bus, tmp_path: Path, after: str, relay: str
    ) -> None:
        if relay == "acknowledges":
            bus.with_journal()
        count = 2 if after == "at_the_end()\n" else 1
        directory = tmp_path / "own spool"
        directory.mkdir()
        bus.configure("own", publisher_spool=str(directory))
        running = bus.relay() if relay != "is not there" else None
        run(bus, EXIT + after)
        if running is None:
            assert len(spooled(directory)) == count
            return
        running.terminate()
        running.wait_for_line(f"{count} relayed")
        assert spooled(directory) == []


class TestNested:
    """Whoever is in the middle of publishing has his message out, and so has a handler."""

    def test_a_hook_that_publishes(self, bus: Bus, spool: Path) -> None:
        bus.relay()
        program = INIT + (
            "def hook(message):\n"
            "    fedmsg_relay.publish('inner', {}, 'm')\n"
            "fedmsg_relay.publish('outer', {}, 'm', pre_fire_hook=hook)\n"
            "fedmsg_relay.publish('later', {}, 'm')\n"
        )
        run(bus, program)
        messages = relayed(bus)
        assert [m["topic"].rpartition(".")[2] for m in messages] == ["inner", "outer", "later"]
        assert sorted(message["i"] for message in messages) == [1, 2, 3]

    def test_a_signal_handler_that_publishes(self, bus: Bus, spool: Path) -> None:
        bus.relay()
        program = INIT + (
            "import signal\n"
            "handled = 0\n"
            "def handler(*_):\n"
            "    global handled\n"
            "    fedmsg_relay.publish('handler', {}, 'm')\n"
            "    handled += 1\n"
            "signal.signal(signal.SIGALRM, handler)\n"
            "published = 0\n"
            "while handled < 60:\n"
            # One at a time, at ever another moment of what this thread is about to do.
            "    signal.setitimer(signal.ITIMER_REAL, 0.0003 * (1 + published % 12))\n"
            "    fedmsg_relay.publish('main', {}, 'm')\n"
            "    published += 1\n"
            "signal.setitimer(signal.ITIMER_REAL, 0)\n"
            "print(published, handled)\n"
        )
        published, handled = map(int, run(bus, program).stdout.split())
        topics = [message["topic"] for message in relayed(bus)]
        assert topics.count("org.fedoraproject.stg.m.main") == published
        assert topics.count("org.fedoraproject.stg.m.handler") == handled

    def test_a_handler_that_ends_the_program(self, bus: Bus, tmp_path: Path) -> None:
        directory = tmp_path / "own spool"
        directory.mkdir()
        bus.configure("own", publisher_spool=str(directory))
        program = INIT + (
            "import signal\n"
            "def handler(*_):\n"
            "    fedmsg_relay.publish('handler', {}, 'm')\n"
            "    fedmsg_relay.destroy()\n"
            "    sys.exit(0)\n"
            "signal.signal(signal.SIGALRM, handler)\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
            "fedmsg_relay.publish('main', {}, 'm')\n"  # no relay: it waits for one
        )
        run(bus, program)
        assert "handler" in [message["topic"].rpartition(".")[2] for message in spooled(directory)]

    @pytest.mark.parametrize("call", ["destroy()", "init(config_filename=sys.argv[1])"])
    def test_a_hook_that_takes_the_connection_away(self, bus: Bus, spool: Path, call: str) -> None:
        bus.relay()
        program = INIT + (
            f"def hook(message): fedmsg_relay.{call}\n"
            "for n in range(3): fedmsg_relay.publish('t', {'n': n}, 'm', pre_fire_hook=hook)\n"
        )
        run(bus, program)
        assert [message["msg"]["n"] for message in relayed(bus)] == [0, 1, 2]


class TestAsyncio:
    def test_publish_in_threads_of_a_loop(self, bus: Bus, spool: Path) -> None:
        bus.relay()
        program = INIT + (
            "import asyncio\n"
            "async def main():\n"
            "    calls = [asyncio.to_thread(fedmsg_relay.publish, 't', {'n': n}, 'm')\n"
            "             for n in range(100)]\n"
            "    await asyncio.gather(*calls)\n"
            "asyncio.run(main())\n"
        )
        run(bus, program)
        assert sorted(message["msg"]["n"] for message in relayed(bus)) == list(range(100))


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_what_is_no_number_in_json_is_an_error(bus: Bus, spool: Path, number: str) -> None:
    bus.relay()
    program = INIT + (
        "try:\n"
        f"    fedmsg_relay.publish('t', {{'load': [float({number!r})]}}, 'm')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "fedmsg_relay.publish('t', {'load': [1.5]}, 'm')\n"
    )
    assert "NaN or Infinity" in run(bus, program).stdout
    assert [message["msg"] for message in relayed(bus)] == [{"load": [1.5]}]


class TestPublishAll:
    PROGRAM = """
import sys, fedmsg_relay
fedmsg_relay.init(config_filename=sys.argv[1], environment="stg")
def msgs():
    for n in range(3000):
        yield {"n": float("nan") if n == 7 else n, "text": "x" * (2_000_000 if n == 9 else 10)}
    raise OSError("the source has ended early")
kinds = []
try:
    for outcome in fedmsg_relay.publish_all(msgs(), "t", "m"):
        kinds.append(outcome.kind)
except OSError as error:
    print(error)
print(len(kinds), [n for n, kind in enumerate(kinds) if kind == "refused"], sorted(set(kinds)))
"""

    def expected(self, kind: str) -> str:
        kinds = sorted([kind, "refused"])
        return f"the source has ended early\n3000 [7, 9] {kinds}\n"

    def test_each_is_acknowledged_in_order_and_what_is_refused_is_told(
        self, bus: Bus, spool: Path
    ) -> None:
        bus.configure("z", relay_max_message_bytes=1_000_000)
        bus.relay()
        assert run(bus, self.PROGRAM).stdout == self.expected("acked")
        numbers = [message["msg"]["n"] for message in relayed(bus)]
        assert numbers == [n for n in range(3000) if n not in (7, 9)]

    def test_without_a_relay_each_is_spooled_in_order(self, bus: Bus, spool: Path) -> None:
        bus.configure("z", relay_max_message_bytes=1_000_000, timeout=0.2)
        assert run(bus, self.PROGRAM).stdout == self.expected("spooled")
        numbers = [message["msg"]["n"] for message in spooled(spool)]
        assert numbers == [n for n in range(3000) if n not in (7, 9)]
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in spool.iterdir())
