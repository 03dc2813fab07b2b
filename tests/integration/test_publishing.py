"""Our publishers and a relay that acknowledges: acked, or spooled and delivered, or an error."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import zmq
from fedmsg_relay.publishing.spool import decoded

from tests.conftest import RELAY, Bus, Listener, environment, wait_for
from tests.support.programs import Child
from tests.support.waiting import at_most, patient

MakeListener = Callable[..., Listener]

# What fedmsg-logger needs for a message that is acknowledged at once, and what it could do without.
OURS = {
    f"fedmsg_relay.{name}"
    for name in (
        *(
            "address",
            "cli",
            "config",
            "errors",
            "escapes",
            "logger",
            "lookup",
            "message",
            "publishing",
        ),
        *(f"publishing.{name}" for name in ("delivery", "polling", "publisher", "spool")),
        *(f"publishing.{name}" for name in ("submit_client", "zmtp")),
    )
}
SLOW = {
    *("argparse", "asyncio", "contextlib", "dataclasses", "datetime", "inspect", "ipaddress"),
    *("logging", "pathlib", "shutil", "sqlite3", "ssl", "subprocess", "tempfile", "threading"),
    *("traceback", "typing", "uuid", "zmq"),
}


def second_bus(bus: Bus) -> Bus:
    """Addresses and config of another relay, on the same host."""
    directory = bus.directory / "second"
    directory.mkdir()
    other = Bus(directory, post_init_sleep=0.1, zmq_reconnect_ivl_max=100)
    other.with_journal()
    return other


def second_relay(bus: Bus, other: Bus) -> Any:
    command = (sys.executable, RELAY, "--config-filename", other.config_directory)
    relay = bus.start(*command)
    relay.wait_for_line("ready")
    bus.configure(
        "z", relay_submit=[bus.submit, other.submit], relay_inbound=[bus.inbound, other.inbound]
    )
    return relay


def spooled(directory: Path) -> list[dict[str, Any]]:
    # Whoever looks while one is being written must not read half of it.
    files = sorted(path for path in directory.iterdir() if path.name[0].isdigit())
    return [json.loads(decoded(path.read_bytes())[1]) for path in files]


def start_logger(bus: Bus, *options: str) -> Child:
    """What it says goes to `said(bus)`."""
    with (bus.directory / "logger.log").open("wb") as stderr:
        return Child(
            [*bus.command("logger"), *options],
            env=environment(),
            cwd=bus.directory,
            stdin=subprocess.PIPE,
            stderr=stderr,
        )


def said(bus: Bus) -> str:
    return (bus.directory / "logger.log").read_text()


def write(child: Child, text: str) -> None:
    assert child.stdin is not None
    child.stdin.write(text.encode())
    child.stdin.flush()


class TestAcknowledged:
    def test_silent_and_in_the_journal(self, bus: Bus, spool: Path, listener: MakeListener) -> None:
        receiving = listener(bus.relay())
        result = bus.tool("logger", "--message", "x")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        [msg_id] = bus.journaled()
        assert json.loads(receiving.receive()[1])["msg_id"] == msg_id

    def test_verbose_names_relay_and_number(self, bus: Bus, spool: Path) -> None:
        bus.relay()
        result = bus.tool("logger", "--verbose", input="a\nb\n")
        ids = bus.journaled()
        assert result.stderr == "".join(
            f"fedmsg-logger: {msg_id} acked by {bus.submit} as seq {seq}\n"
            for seq, msg_id in enumerate(ids, 1)
        )

    def test_many_lines_once_each_and_in_order(
        self, bus: Bus, spool: Path, listener: MakeListener
    ) -> None:
        receiving = listener(bus.relay())
        total = 10_000
        assert bus.tool("logger", input="".join(f"{n}\n" for n in range(total))).returncode == 0
        heard = [json.loads(receiving.receive()[1]) for _ in range(total)]
        assert [message["msg"]["log"] for message in heard] == [str(n) for n in range(total)]
        assert bus.journaled() == [message["msg_id"] for message in heard]

    def test_a_line_is_acknowledged_before_the_next_one_comes(self, bus: Bus, spool: Path) -> None:
        bus.relay()
        child = start_logger(bus)
        for number in range(1, 4):
            write(child, f"{number}\n")
            wait_for(lambda: len(bus.journaled()) == number)  # noqa: B023  awaited in the loop
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(10) == 0

    def test_what_a_relay_refuses_is_65_and_the_rest_is_published(
        self, bus: Bus, spool: Path
    ) -> None:
        bus.configure("z", relay_max_message_bytes=1000)
        bus.relay()
        bus.configure("z", relay_max_message_bytes=1500)
        result = bus.tool("logger", input="x" * 1000 + "\nsmall\n")
        assert result.returncode == 65
        assert re.fullmatch(rf"fedmsg-logger: {bus.submit} refuses \S+: .+\n", result.stderr)
        assert len(bus.journaled()) == 1
        assert spooled(spool) == []

    def test_a_relay_without_a_submit_address_is_given_it_the_legacy_way(
        self, bus: Bus, spool: Path, listener: MakeListener
    ) -> None:
        keys = (bus.config_directory / "journal.py").read_text()
        (bus.config_directory / "journal.py").unlink()
        receiving = listener(bus.relay())
        (bus.config_directory / "journal.py").write_text(keys)
        result = bus.tool("logger", "--message", "x", "--verbose")
        assert result.returncode == 0
        assert f"handed to {bus.inbound}, which does not acknowledge" in result.stderr
        assert json.loads(receiving.receive()[1])["msg"] == {"log": "x"}
        assert spooled(spool) == []

    def test_only_what_is_used_is_imported(self, bus: Bus, spool: Path) -> None:
        """Starting takes an acked fedmsg-logger most of its time, and imports take most of that.

        pyzmq alone takes three times as long as the start of Python does; argparse and typing take
        half as long.
        """
        bus.relay()
        script = (
            "import sys; before = set(sys.modules)\n"
            "from fedmsg_relay.logger import main\n"
            "assert main() == 0\n"
            "print(*sorted(set(sys.modules) - before))"
        )
        options = ["--config-filename", str(bus.config_directory), "--message", "x"]
        result = subprocess.run(
            # -S: what is installed beside Python may import anything when it starts.
            [sys.executable, "-S", "-c", script, *options],
            env={**environment(), "LOGNAME": "me"},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert len(bus.journaled()) == 1
        imported = set(result.stdout.split())
        assert {name for name in imported if name.startswith("fedmsg_relay.")} == OURS
        assert imported.isdisjoint(SLOW)


class TestNoRelay:
    def test_spooled_is_0_and_one_line(self, bus: Bus, spool: Path) -> None:
        started = time.monotonic()
        result = bus.tool("logger", "--timeout", "1", input="a\nb\nc\n")
        at_most(3, since=started)
        assert (result.returncode, result.stdout) == (0, "")
        assert result.stderr == (
            f"fedmsg-logger: 3 messages spooled in {spool}, to be delivered later:"
            f" no relay answered within 1 s: {bus.submit}: connection refused\n"
        )
        assert [message["msg"]["log"] for message in spooled(spool)] == ["a", "b", "c"]

    def test_no_spool_is_75_and_nothing_is_kept(self, bus: Bus, spool: Path) -> None:
        result = bus.tool("logger", "--message", "x", "--no-spool", "--timeout", "0.5")
        assert result.returncode == 75
        assert result.stderr.startswith("fedmsg-logger: no relay answered within 0.5 s:")
        assert list(spool.iterdir()) == []

    def test_a_spool_that_is_not_there_is_75_and_is_named(self, bus: Bus, spool: Path) -> None:
        spool.rmdir()
        result = bus.tool("logger", "--message", "x", "--timeout", "0.5")
        assert result.returncode == 75
        assert f"there is no spool {spool} (publisher_spool)" in result.stderr
        assert result.stderr.count("\n") == 1

    def test_a_line_is_spooled_before_the_next_one_comes(self, bus: Bus, spool: Path) -> None:
        child = start_logger(bus, "--timeout", "0.5")
        for number in range(1, 4):
            write(child, f"{number}\n")
            wait_for(lambda: len(spooled(spool)) == number)  # noqa: B023  awaited in the loop
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(10) == 0

    def test_a_relay_that_hangs_gets_it_once_however_often_it_is_sent(
        self, bus: Bus, spool: Path, listener: MakeListener
    ) -> None:
        """Spooled because no reply came, though the relay may have it; the msg_id tells it so."""
        relay = bus.relay()
        receiving = listener(relay)
        child = start_logger(bus, "--timeout", "1", "--verbose")
        write(child, "first\n")
        wait_for(lambda: bus.journaled())
        with relay.paused():
            write(child, "second\n")
            wait_for(lambda: spooled(spool))
            assert child.stdin is not None
            child.stdin.close()
            assert child.wait(10) == 0
        assert "it does not acknowledge" in said(bus)
        assert bus.tool("logger", "--drain").returncode == 0
        assert bus.tool("logger", "--message", "last").returncode == 0
        heard = [json.loads(receiving.receive()[1])["msg"]["log"] for _ in range(3)]
        assert heard == ["first", "second", "last"]
        assert len(bus.journaled()) == 3

    def test_a_closed_standard_input_is_65(self, bus: Bus, spool: Path) -> None:
        """Its number may be that of a descriptor of ZeroMQ's, which must not be read."""
        result = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", *bus.command("logger")],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert (result.returncode, result.stderr) == (
            65,
            "fedmsg-logger: standard input is closed\n",
        )


class TestTwoRelays:
    def test_one_that_hangs_costs_less_than_two_seconds(self, bus: Bus, spool: Path) -> None:
        other = second_bus(bus)
        relay = bus.relay()
        second_relay(bus, other)
        with relay.paused():
            started = time.monotonic()
            result = bus.tool("logger", "--message", "x", "--verbose")
            at_most(2, since=started)
        assert result.returncode == 0
        assert f"acked by {other.submit} as seq 1" in result.stderr
        assert len(other.journaled()) == 1

    def test_one_that_hangs_while_it_is_in_use(self, bus: Bus, spool: Path) -> None:
        """What it had taken already may be doubled, and no more than that."""
        other = second_bus(bus)
        relay = bus.relay()
        second = second_relay(bus, other)
        child = start_logger(bus)
        write(child, "first\n")
        # That is the first relay, unless it is so slow that the second one was asked, too.
        wait_for(lambda: bus.journaled() or other.journaled())
        hangs, goes_on = (relay, other) if bus.journaled() else (second, bus)
        before = len(goes_on.journaled())
        with hangs.paused():
            started = time.monotonic()
            write(child, "second\n")
            wait_for(lambda: len(goes_on.journaled()) > before)
            at_most(2, since=started)
            write(child, "third\n")
            wait_for(lambda: len(goes_on.journaled()) >= before + 2)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(10) == 0
        assert hangs.terminate() == 0
        first, others = bus.journaled(), other.journaled()
        assert len(set(first) | set(others)) == 3
        of_the_hanging = first if hangs is relay else others
        assert len(of_the_hanging) == len(set(of_the_hanging)) <= 2
        assert spooled(spool) == []

    def test_one_that_is_killed_under_load(self, bus: Bus, spool: Path) -> None:
        other = second_bus(bus)
        relay = bus.relay()
        second = second_relay(bus, other)
        child = start_logger(bus, "--verbose")
        total = 20_000
        text = "".join(f"{number}\n" for number in range(total))
        write(child, text[: len(text) // 4])
        # That is the first relay, unless it was so slow at the start that the second one was asked.
        wait_for(lambda: len(bus.journaled()) > 1000 or len(other.journaled()) > 1000)
        (relay if len(bus.journaled()) > 1000 else second).kill()
        write(child, text[len(text) // 4 :])
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(60) == 0, said(bus)
        acked = re.findall(r"^fedmsg-logger: (\S+) acked by (\S+) as", said(bus), re.M)
        journals = {bus.submit: set(bus.journaled()), other.submit: set(other.journaled())}
        assert len(acked) == len({msg_id for msg_id, _ in acked}) == total
        assert all(msg_id in journals[submit] for msg_id, submit in acked)
        assert {submit for _, submit in acked} == set(journals)


class TestRestart:
    def test_a_relay_that_is_killed_and_started_again_under_load(
        self, bus: Bus, spool: Path
    ) -> None:
        """Every message once in the journal: what is submitted again is known by its msg_id."""
        relay = bus.relay()
        child = start_logger(bus, "--timeout", "30")
        total = 20_000
        text = "".join(f"{number}\n" for number in range(total))
        for part in range(4):
            write(child, text[part * len(text) // 4 : (part + 1) * len(text) // 4])
            wait_for(lambda: len(bus.journaled()) > 4500 * part + 500)  # noqa: B023
            relay.kill()
            relay = bus.relay()
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(60) == 0, said(bus)
        ids = bus.journaled()
        assert len(ids) == len(set(ids)) == total
        assert spooled(spool) == []


class TestApi:
    def run(self, bus: Bus, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", f"import fedmsg_relay\n{script}", str(bus.config_directory)],
            env=environment(),
            cwd=bus.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_publish_returns_when_it_is_on_disk(self, bus: Bus, spool: Path) -> None:
        bus.relay()
        result = self.run(
            bus,
            "import os, sys\n"
            "fedmsg_relay.init(config_filename=sys.argv[1])\n"
            "print(fedmsg_relay.publish(topic='a', msg={'n': 1})['msg_id'], flush=True)\n"
            "os._exit(0)\n",
        )
        assert bus.journaled() == [result.stdout.strip()]

    def test_publish_returns_when_it_is_spooled(self, bus: Bus, spool: Path) -> None:
        result = self.run(
            bus,
            "import sys\n"
            "fedmsg_relay.init(config_filename=sys.argv[1], timeout=0.5)\n"
            "print(fedmsg_relay.publish(topic='a', msg={'n': 1})['msg_id'])\n",
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert [message["msg_id"] for message in spooled(spool)] == [result.stdout.strip()]

    def test_neither_is_an_exception(self, bus: Bus, spool: Path) -> None:
        spool.rmdir()
        result = self.run(
            bus,
            "import sys\n"
            "fedmsg_relay.init(config_filename=sys.argv[1], timeout=0.5)\n"
            "try:\n"
            "    fedmsg_relay.publish(topic='a', msg={'n': 1})\n"
            "except fedmsg_relay.PublishError as error:\n"
            "    print(error)\n",
        )
        assert result.stdout.startswith("no relay answered within 0.5 s")
        assert f"there is no spool {spool}" in result.stdout

    def test_refused_is_an_exception_of_its_own(self, bus: Bus, spool: Path) -> None:
        bus.relay()
        result = self.run(
            bus,
            "import sys\n"
            "fedmsg_relay.init(config_filename=sys.argv[1])\n"
            "deep = []\n"
            "for _ in range(200): deep = [deep]\n"
            "try:\n"
            "    fedmsg_relay.publish(topic='a', msg={'deep': deep})\n"
            "except fedmsg_relay.MessageRefused as error:\n"
            "    print(error)\n"
            "fedmsg_relay.publish(topic='b')\n",
        )
        assert result.stdout.startswith(f"{bus.submit} refuses the message: ")
        assert len(bus.journaled()) == 1

    def test_threads_and_forks(self, bus: Bus, spool: Path) -> None:
        bus.relay()
        result = self.run(
            bus,
            "import os, sys, threading\n"
            "def some():\n"
            "    for n in range(50):\n"
            "        fedmsg_relay.publish(topic='t', config_filename=sys.argv[1])\n"
            "threads = [threading.Thread(target=some) for _ in range(4)]\n"
            "[t.start() for t in threads]; [t.join() for t in threads]\n"
            "pid = os.fork()\n"
            "some()\n"
            "if pid: assert os.waitpid(pid, 0)[1] == 0\n",
        )
        assert (result.returncode, result.stderr) == (0, "")
        ids = bus.journaled()
        assert len(ids) == len(set(ids)) == 300


def test_the_envelope_of_a_request_is_of_no_consequence(
    bus: Bus, spool: Path, context: zmq.Context[Any]
) -> None:
    """As other clients may: REQ, which sends none."""
    bus.relay()
    bus.tool("logger", "--message", "x")
    [msg_id] = bus.journaled()
    with closing(sqlite3.connect(bus.journal)) as db:
        [(topic, body)] = db.execute("SELECT topic, body FROM message")
    req = context.socket(zmq.REQ)
    req.connect(bus.submit)
    req.send_multipart([topic.encode(), body])
    assert req.poll(int(patient(20) * 1000))
    reply = json.loads(req.recv())
    assert abs(reply.pop("time") - time.time()) < 20
    assert reply == {"ok": True, "seq": 1, "msg_id": msg_id}
