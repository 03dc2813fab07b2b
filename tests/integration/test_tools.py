"""fedmsg-logger, fedmsg-tail, fedmsg-probe: what a script, an operator, a check relies on."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from tests.conftest import RELAY, Bus, Listener, Sender, environment, free_port, wait_for
from tests.support.programs import Child
from tests.support.waiting import at_most, patient

MakeListener = Callable[..., Listener]


def body_of(frames: list[bytes]) -> dict[str, Any]:
    body = json.loads(frames[1])
    assert body["topic"] == frames[0].decode()
    return dict(body)


class TestLogger:
    def test_one_message_from_the_command_line(self, bus: Bus, listener: MakeListener) -> None:
        receiving = listener(bus.relay())
        result = bus.tool("logger", "--message", "häi", "--topic", "a.b", "--modname", "mine")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        body = body_of(receiving.receive())
        assert body["topic"] == "org.fedoraproject.dev.mine.a.b"
        assert body["msg"] == {"log": "häi"}
        assert body["i"] == 1

    def test_a_line_of_input_is_a_message(self, bus: Bus, listener: MakeListener) -> None:
        receiving = listener(bus.relay())
        result = bus.tool("logger", input="one\n  two \n\nlast without end")
        assert result.returncode == 0
        bodies = [body_of(receiving.receive()) for _ in range(4)]
        assert [b["msg"]["log"] for b in bodies] == ["one", "two", "", "last without end"]
        assert [b["i"] for b in bodies] == [1, 2, 3, 4]
        assert len({b["msg_id"] for b in bodies}) == 4

    def test_a_line_is_published_when_it_comes_not_at_the_end(
        self, bus: Bus, listener: MakeListener
    ) -> None:
        receiving = listener(bus.relay())
        child = Child(
            bus.command("logger"), env=environment(), cwd=bus.directory, stdin=subprocess.PIPE
        )
        assert child.stdin is not None
        for text in ("one", "two"):
            child.stdin.write(text.encode() + b"\n")
            child.stdin.flush()
            assert body_of(receiving.receive())["msg"] == {"log": text}
        child.stdin.close()
        assert child.wait(10) == 0

    def test_json(self, bus: Bus, listener: MakeListener) -> None:
        receiving = listener(bus.relay())
        for text in ('{"a": [1, null]}', "[]", "5"):
            assert bus.tool("logger", "--json-input", input=text + "\n").returncode == 0
        assert bus.tool("logger", "--json-input", "--message", '{"b": 1}').returncode == 0
        msgs = [body_of(receiving.receive())["msg"] for _ in range(4)]
        assert msgs == [{"a": [1, None]}, {}, 5, {"b": 1}]

    @pytest.mark.parametrize(
        ("options", "text", "complaint"),
        [
            (["--json-input"], b"{'a': 1}", "standard input is not JSON"),
            (["--json-input"], b"", "standard input is not JSON"),
            (["--json-input"], b"\xff", "standard input is not UTF-8"),
            (["--json-input", "--message", "{"], b"", "--message is not JSON"),
            (["--json-input"], b'{"a": [NaN]}', "the message holds NaN or Infinity"),
            (["--json-input"], b'{"a": -1e400}', "the message holds NaN or Infinity"),
        ],
    )
    def test_bad_input_is_65(
        self, bus: Bus, options: list[str], text: bytes, complaint: str
    ) -> None:
        bus.relay()
        result = bus.tool("logger", *options, input=text.decode("latin-1"), encoding="latin-1")
        assert result.returncode == 65
        assert result.stderr.startswith(f"fedmsg-logger: {complaint}")
        assert result.stderr.count("\n") == 1

    def test_a_bad_line_is_65_and_the_others_are_published(
        self, bus: Bus, listener: MakeListener
    ) -> None:
        receiving = listener(bus.relay())
        result = bus.tool("logger", input="one\ntw\xffo\nthree\n", encoding="latin-1")
        assert result.returncode == 65
        assert "line 2 of standard input is not UTF-8" in result.stderr
        assert [body_of(receiving.receive())["msg"]["log"] for _ in range(2)] == ["one", "three"]

    def test_a_message_no_relay_lets_through_is_refused(
        self, bus: Bus, listener: MakeListener
    ) -> None:
        bus.configure("z", relay_max_message_bytes=1000)
        receiving = listener(bus.relay())
        result = bus.tool("logger", input="x" * 1000 + "\nsmall\n")
        assert result.returncode == 65
        assert "relay_max_message_bytes" in result.stderr
        assert body_of(receiving.receive())["msg"] == {"log": "small"}

    @pytest.mark.parametrize(
        "options",
        [["--nonsense"], ["--timeout", "soon"], ["--config-filename", "/none"], ["--timeout=-1"]],
    )
    def test_usage_is_2(self, bus: Bus, options: list[str]) -> None:
        result = bus.tool("logger", "--message", "x", *options)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr

    def test_options_of_upstream_are_taken(self, bus: Bus, listener: MakeListener) -> None:
        receiving = listener(bus.relay())
        common = "--io-threads 2 --post-init-sleep 60 --timeout 5 --high-water-mark 7 --linger 2000"
        result = bus.tool(
            "logger", *common.split(), "--topic-prefix", "com.example", "--message", "x"
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert body_of(receiving.receive())["topic"] == "com.example.dev.logger.log"

    def test_print_config_is_json_of_what_is_in_force(self, bus: Bus) -> None:
        bus.configure("z", environment="stg", other={"a": 1})
        result = bus.tool("logger", "--print-config", "--linger", "7")
        printed = json.loads(result.stdout)
        assert result.returncode == 0
        assert printed["environment"] == "stg"
        assert printed["other"] == {"a": 1}
        assert printed["zmq_linger"] == 7
        assert printed["relay_inbound"] == [bus.inbound]

    def test_a_config_key_sets_an_options_default_as_upstream_has_it(
        self, bus: Bus, listener: MakeListener
    ) -> None:
        bus.configure("z", modname="fromconfig")
        receiving = listener(bus.relay())
        assert bus.tool("logger", "--message", "x").returncode == 0
        assert bus.tool("logger", "--message", "x", "--modname", "given").returncode == 0
        topics = [body_of(receiving.receive())["topic"] for _ in range(2)]
        assert [topic.split(".")[3] for topic in topics] == ["fromconfig", "given"]

    def test_no_relay_is_75_within_the_time_and_says_why(self, bus: Bus) -> None:
        started = time.monotonic()
        result = bus.tool("logger", "--message", "x", "--timeout", "1")
        assert time.monotonic() - started > 0.9
        at_most(4, since=started)
        assert result.returncode == 75
        assert result.stderr == (
            f"fedmsg-logger: no relay answered within 1 s: {bus.inbound}: connection refused\n"
        )

    def test_what_each_dead_relay_said(self, bus: Bus) -> None:
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", free_port()))
            mute.listen()
            open_port = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
            unknown = "tcp://no-such-host.invalid:9941"
            bus.configure("z", relay_inbound=[unknown, open_port, bus.inbound], timeout=1.5)
            result = bus.tool("logger", "--message", "x")
        assert result.returncode == 75
        assert f"{unknown}: cannot resolve" in result.stderr
        assert f"{open_port}: the port is open but no relay answers" in result.stderr
        assert f"{bus.inbound}: connection refused" in result.stderr

    def test_a_stopped_relay_is_75_not_a_lost_message(self, bus: Bus) -> None:
        relay = bus.relay()
        with relay.paused():
            result = bus.tool("logger", "--message", "x", "--timeout", "1")
        assert result.returncode == 75
        assert "it hangs" in result.stderr

    @pytest.mark.parametrize("first", ["refuses", "hangs"])
    def test_the_next_relay_is_tried(self, bus: Bus, listener: MakeListener, first: str) -> None:
        receiving = listener(bus.relay())
        with socket.socket() as dead:
            dead.bind(("127.0.0.1", free_port()))
            if first == "hangs":
                dead.listen()
            bus.configure(
                "z", relay_inbound=[f"tcp://127.0.0.1:{dead.getsockname()[1]}", bus.inbound]
            )
            started = time.monotonic()
            result = bus.tool("logger", "--message", "x")
            assert (result.returncode, result.stderr) == (0, "")
            at_most(2, since=started)
        assert body_of(receiving.receive())["msg"] == {"log": "x"}

    def test_the_first_relay_that_answers_gets_every_message_and_the_second_none(
        self, bus: Bus
    ) -> None:
        (bus.directory / "second").mkdir()
        other = Bus(bus.directory / "second", post_init_sleep=0.1)
        second = bus.start(sys.executable, RELAY, "--config-filename", other.config_directory)
        second.wait_for_line("ready")
        first = bus.relay()
        bus.configure("z", relay_inbound=[bus.inbound, other.inbound])
        for _ in range(10):
            assert bus.tool("logger", input="a\nb\n").returncode == 0
        assert (first.terminate(), second.terminate()) == (0, 0)
        assert "20 relayed" in first.output
        assert "relayed" not in second.output

    def test_a_relay_that_does_not_keep_up_slows_the_input_down_and_loses_nothing(
        self, bus: Bus, listener: MakeListener
    ) -> None:
        relay = bus.relay()
        receiving = listener(relay)
        child = Child(
            [*bus.command("logger"), "--high-water-mark", "10", "--timeout", "30"],
            env=environment(),
            cwd=bus.directory,
            stdin=subprocess.PIPE,
        )
        assert child.stdin is not None
        child.stdin.write(b"first\n")
        child.stdin.flush()
        assert body_of(receiving.receive())["msg"]["log"] == "first"
        relay.pause()
        total = 3000  # 30 MB: more than the buffers on the way hold
        written = 0

        def write() -> None:
            nonlocal written
            assert child.stdin is not None
            for number in range(total):
                child.stdin.write(b"%d %s\n" % (number, b"x" * 10_000))
                child.stdin.flush()
                written = number + 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            before = -1

            def nothing_moves_any_more() -> bool:
                nonlocal before
                before, last = written, before
                return written == last

            wait_for(nothing_moves_any_more, pause=0.3)
            assert written < total
        finally:
            relay.resume()
            writer.join()
        child.stdin.close()
        assert child.wait(30) == 0
        logs = [body_of(receiving.receive())["msg"]["log"] for _ in range(total)]
        assert [int(log.split()[0]) for log in logs] == list(range(total))

    def test_a_relay_that_comes_late_is_waited_for(self, bus: Bus) -> None:
        child = Child(
            [*bus.command("logger"), "--message", "x", "--timeout", "20"],
            env=environment(),
            cwd=bus.directory,
        )
        relay = bus.relay()
        assert child.wait(20) == 0
        relay.terminate()
        assert "1 relayed" in relay.output

    def test_a_restart_in_the_middle_of_the_input(
        self, bus: Bus, context: zmq.Context[Any]
    ) -> None:
        """What is written while there is no relay waits for the next one."""
        child = Child(
            [*bus.command("logger"), "--timeout", "20"],
            env=environment(),
            cwd=bus.directory,
            stdin=subprocess.PIPE,
        )
        assert child.stdin is not None
        first = bus.relay()
        receiving = Listener(context, bus.outbound)
        first.wait_for_line("1 now")
        child.stdin.write(b"one\n")
        child.stdin.flush()
        assert body_of(receiving.receive())["msg"] == {"log": "one"}
        assert first.terminate() == 0
        assert "1 relayed" in first.output
        child.stdin.write(b"two\n")
        child.stdin.flush()
        second = bus.relay()
        child.stdin.close()
        assert child.wait(30) == 0
        second.terminate()
        assert "1 relayed" in second.output

    def test_many_lines_are_all_published(self, bus: Bus, listener: MakeListener) -> None:
        receiving = listener(bus.relay())
        total = 5000
        text = "".join(f"{n}\n" for n in range(total))
        assert bus.tool("logger", input=text).returncode == 0
        got = [json.loads(receiving.receive()[1])["msg"]["log"] for _ in range(total)]
        assert got == [str(n) for n in range(total)]

    def test_scripts_that_start_all_at_once_are_all_heard(
        self, bus: Bus, listener: MakeListener
    ) -> None:
        receiving = listener(bus.relay())
        children = [
            Child(
                [*bus.command("logger"), "--message", str(n), "--timeout", "30"],
                env=environment(),
                cwd=bus.directory,
            )
            for n in range(40)
        ]
        assert [child.wait(60) for child in children] == [0] * 40
        got = {json.loads(receiving.receive()[1])["msg"]["log"] for _ in range(40)}
        assert got == {str(n) for n in range(40)}

    def test_only_what_is_used_is_imported(self, bus: Bus) -> None:
        bus.relay()
        result = bus.tool("logger", "--message", "x", env={"PYTHONPROFILEIMPORTTIME": "1"})
        assert result.returncode == 0
        for module in (
            "logging",
            "cryptography",
            "pygments",
            "ssl",
            "uuid",
            "ipaddress",
            "asyncio",
        ):
            assert not re.search(rf"\| +{module}\b", result.stderr), module


class TestApi:
    def run(self, bus: Bus, script: str) -> subprocess.CompletedProcess[str]:
        home = bus.directory / "home"
        (home / ".fedmsg.d").mkdir(parents=True, exist_ok=True)
        path = bus.directory / "script.py"
        path.write_text(f"CONFIG = {str(bus.config_directory)!r}\nimport fedmsg_relay\n" + script)
        return subprocess.run(
            [sys.executable, str(path)],
            env=environment(HOME=str(home)),
            cwd=bus.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_publish_at_the_end_of_a_script_arrives(self, bus: Bus, listener: MakeListener) -> None:
        receiving = listener(bus.relay())
        result = self.run(
            bus,
            "fedmsg_relay.init(config_filename=CONFIG, active=True, name='relay_inbound')\n"
            "m = fedmsg_relay.publish(topic='a', msg={'x': 1}, modname='m')\n"
            "print(m['msg_id'])\n"
            "fedmsg_relay.publish(topic='b', msg={'x': 2})\n",
        )
        assert (result.returncode, result.stderr) == (0, "")
        first, second = body_of(receiving.receive()), body_of(receiving.receive())
        assert first["topic"] == "org.fedoraproject.dev.m.a"
        assert first["msg_id"] == result.stdout.strip()
        assert second["topic"] == "org.fedoraproject.dev.__main__.b"
        assert (first["i"], second["i"]) == (1, 2)

    def test_overrides_hook_and_destroy(self, bus: Bus, listener: MakeListener) -> None:
        receiving = listener(bus.relay())
        result = self.run(
            bus,
            "hook = lambda message: message.update(headers={'h': 1})\n"
            "fedmsg_relay.publish(topic='a', modname='m', config_filename=CONFIG,\n"
            "                     environment='stg', pre_fire_hook=hook)\n"
            "fedmsg_relay.destroy()\nfedmsg_relay.destroy()\n"
            "fedmsg_relay.publish(topic='b', modname='m', config_filename=CONFIG)\n",
        )
        assert (result.returncode, result.stderr) == (0, "")
        first, second = body_of(receiving.receive()), body_of(receiving.receive())
        assert first["topic"] == "org.fedoraproject.stg.m.a"
        assert first["headers"] == {"h": 1}
        assert first["msg"] == {}
        assert (second["topic"], second["i"]) == ("org.fedoraproject.dev.m.b", 1)

    def test_no_relay_is_an_exception(self, bus: Bus) -> None:
        result = self.run(
            bus,
            "try:\n"
            "    fedmsg_relay.publish(topic='a', msg={}, config_filename=CONFIG, timeout=0.3)\n"
            "except fedmsg_relay.PublishError as error:\n"
            "    print(error)\n",
        )
        assert result.stdout.startswith("no relay answered within 0.3 s")
        assert result.stderr == ""

    def test_threads_and_forks(self, bus: Bus, listener: MakeListener) -> None:
        receiving = listener(bus.relay())
        result = self.run(
            bus,
            "import os, threading\n"
            "fedmsg_relay.init(config_filename=CONFIG)\n"
            "def some(who):\n"
            "    for n in range(50):\n"
            "        fedmsg_relay.publish(topic='t', modname=who, msg={'n': n},\n"
            "                             config_filename=CONFIG)\n"
            "threads = [threading.Thread(target=some, args=(f't{k}',)) for k in range(4)]\n"
            "[t.start() for t in threads]; [t.join() for t in threads]\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    some('child')\n"
            "    raise SystemExit(0)\n"
            "some('parent')\n"
            "assert os.waitpid(pid, 0)[1] == 0\n",
        )
        assert (result.returncode, result.stderr) == (0, "")
        seen: dict[str, list[int]] = {}
        for _ in range(300):
            body = body_of(receiving.receive())
            seen.setdefault(body["topic"].split(".")[3], []).append(body["msg"]["n"])
        assert seen == {who: list(range(50)) for who in ["t0", "t1", "t2", "t3", "child", "parent"]}


class TestTail:
    @pytest.fixture
    def tail(self, bus: Bus) -> Callable[..., Any]:
        def start(*options: str) -> Any:
            relay = bus.relay()
            process = bus.start(*bus.command("tail"), *options)
            relay.wait_for_line("1 now")
            return process

        return start

    def test_prints_what_goes_by(self, bus: Bus, tail: Callable[..., Any]) -> None:
        process = tail()
        bus.tool("logger", "--message", "hello")
        process.wait_for_line("'msg': {'log': 'hello'}")
        assert re.match(r"\[\d{4}-\d\d-\d\d \S+\]\[fedmsg.commands +INFO\] {'", process.output)

    def test_pretty(self, bus: Bus, tail: Callable[..., Any], context: zmq.Context[Any]) -> None:
        process = tail("--pretty")
        body = {"topic": "t", "timestamp": 1, "msg_id": "x", "signature": "s", "certificate": "c"}
        Sender(context, bus.inbound).send(b"t", json.dumps(body).encode())
        process.wait_for_line("'topic': 't'")
        assert f"'timestamp': '{time.ctime(1)}'" in process.output
        assert "signature" not in process.output

    def test_really_pretty(self, bus: Bus, tail: Callable[..., Any]) -> None:
        process = tail("--really-pretty")
        bus.tool("logger", "--message", "hello")
        process.wait_for_line("hello")
        assert "\x1b[" in process.output
        plain = re.sub(r"\x1b\[[\d;]*m", "", process.output)
        assert json.loads(plain[plain.index("{") :])["msg"] == {"log": "hello"}

    def test_query(self, bus: Bus, tail: Callable[..., Any]) -> None:
        process = tail("--query", "msg.log, msg.none.more ,topic")
        bus.tool("logger", "--message", "hello")
        process.wait_for_line("] hello, None, org.fedoraproject.dev.logger.log")

    def test_topic_include_exclude(self, bus: Bus, tail: Callable[..., Any]) -> None:
        prefix = "org.fedoraproject.dev"
        process = tail("--topic", f"{prefix}.a", "--include", "x|end", "--exclude", "y")
        for modname in ("b.x", "a.y.x", "a.z", "a.x", "a.end"):
            bus.tool("logger", "--modname", modname, "--message", modname)
        process.wait_for_line("'log': 'a.end'")
        assert re.findall(r"'log': '(\S+)'", process.output) == ["a.x", "a.end"]

    def test_the_probes_canary_is_hidden_unless_asked_for(
        self, bus: Bus, tail: Callable[..., Any]
    ) -> None:
        process = tail()
        assert bus.probe().returncode == 0
        bus.tool("logger", "--message", "the end")
        process.wait_for_line("the end")
        assert "_heartbeat" not in process.output

    @pytest.mark.parametrize("mode", [[], ["--pretty"], ["--really-pretty"], ["--query", "a.b"]])
    def test_survives_what_no_relay_would_let_through(
        self, bus: Bus, context: zmq.Context[Any], mode: list[str]
    ) -> None:
        publisher = context.socket(zmq.XPUB)
        publisher.bind(bus.outbound)
        process = bus.start(*bus.command("tail"), *mode)
        assert publisher.poll(int(patient(20) * 1000))
        publisher.recv()
        deep = b"[" * 900 + b"]" * 900
        bodies = [b"", b"x", b"\xff", b"5", b"[]", b"null", b'"s"', b"{}", deep, b"[" * 9999]
        bodies += [b'{"timestamp": %s}' % t for t in (b'"x"', b"1e400", b"NaN", b"1e99", b"{}")]
        bodies += [b'{"a": "\\ud800"}', b'{"l": %s}' % deep, b'{"n": %s}' % (b"9" * 5000)]
        for body in bodies:
            publisher.send_multipart([b"t", body])
        for frames in ([b"t"], [b"\xff", b"{}"], [b"t", b"{}", b"x"]):
            publisher.send_multipart(frames)
        publisher.send_multipart([b"t", b'{"a": {"b": "the end"}}'])
        process.wait_for_line("the end")
        assert process.is_running()
        assert "Traceback" not in process.output

    def test_a_reader_that_goes_away_ends_it_quietly(self, bus: Bus) -> None:
        relay = bus.relay()
        child = Child(
            bus.command("tail"),
            env=environment(),
            cwd=bus.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        relay.wait_for_line("1 now")
        assert child.stdout is not None
        child.stdout.close()
        wait_for(
            lambda: (
                bus.tool("logger", "--message", "x").returncode == 0 and child.poll() is not None
            )
        )
        assert child.returncode == -signal.SIGPIPE
        assert child.stderr is not None
        assert child.stderr.read() == b""

    def test_usage(self, bus: Bus) -> None:
        for options in (["--nonsense"], ["--include", "("]):
            result = bus.tool("tail", *options)
            assert result.returncode == 2
            assert "Traceback" not in result.stderr


class TestProbe:
    def test_ok(self, bus: Bus) -> None:
        bus.relay()
        result = bus.probe()
        assert result.returncode == 0
        pattern = (
            rf"FEDMSG OK - {bus.inbound} to {bus.outbound} in [\d.]+ ms"
            r" \| round_trip=[\d.]+ms;30000;40000;0\n"
        )
        assert re.fullmatch(pattern, result.stdout)

    def test_submit_is_probed_too(self, bus: Bus) -> None:
        bus.with_journal()
        bus.relay()
        result = bus.probe()
        assert result.returncode == 0
        pattern = (
            rf"FEDMSG OK - {bus.inbound} to {bus.outbound} in [\d.]+ ms;"
            rf" {bus.submit} acknowledged in [\d.]+ ms"
            r" \| round_trip=[\d.]+ms;30000;40000;0 ack=[\d.]+ms;30000;40000;0\n"
        )
        assert re.fullmatch(pattern, result.stdout)
        assert len(bus.journaled()) == 2  # both canaries

    def test_a_submit_that_does_not_acknowledge_is_critical(self, bus: Bus) -> None:
        bus.with_journal()
        bus.relay()
        nobody = f"tcp://127.0.0.1:{free_port()}"
        result = bus.tool("probe", "--inbound", bus.inbound, "--submit", nobody, "--timeout", "1")
        assert result.returncode == 2
        assert f"{bus.inbound} to {bus.outbound} in " in result.stdout
        assert f"nothing is acknowledged by submit {nobody}: connection refused" in result.stdout
        for path in bus.directory.glob("journal.db*"):
            path.unlink()
        bus.journal.mkdir()
        wait_for(lambda: bus.tool("probe", "--timeout", "2").returncode == 2)
        assert "journal" in bus.tool("probe", "--timeout", "2").stdout

    def test_thresholds(self, bus: Bus) -> None:
        bus.relay()
        warned = bus.tool("probe", "--warning", "0")
        assert (warned.returncode, warned.stdout[:16]) == (1, "FEDMSG WARNING -")
        critical = bus.tool("probe", "--critical", "0")
        assert (critical.returncode, critical.stdout[:17]) == (2, "FEDMSG CRITICAL -")
        assert ";500;0;0" in critical.stdout
        assert ";0;2000;0" in warned.stdout  # what they are by default

    def test_no_relay(self, bus: Bus) -> None:
        started = time.monotonic()
        result = bus.tool("probe", "--timeout", "1")
        at_most(4, since=started)
        assert result.returncode == 2
        assert result.stdout.startswith("FEDMSG CRITICAL - listeners cannot connect to outbound")
        assert "connection refused" in result.stdout
        assert "round_trip=U;" in result.stdout

    def test_a_deaf_relay_is_told_from_a_mute_one(self, bus: Bus) -> None:
        bus.relay()
        deaf = bus.tool("probe", "--inbound", f"tcp://127.0.0.1:{free_port()}", "--timeout", "1")
        assert deaf.returncode == 2
        assert "scripts cannot publish to inbound" in deaf.stdout
        mute = bus.tool("probe", "--outbound", f"tcp://127.0.0.1:{free_port()}", "--timeout", "1")
        assert "listeners cannot connect to outbound" in mute.stdout

    def test_canaries_that_do_not_come_out(self, bus: Bus, context: zmq.Context[Any]) -> None:
        inbound = context.socket(zmq.SUB)
        inbound.setsockopt(zmq.SUBSCRIBE, b"")
        inbound.bind(bus.inbound)
        outbound = context.socket(zmq.XPUB)
        outbound.bind(bus.outbound)
        probe = Child(
            [*bus.command("probe"), "--timeout", "1"],
            env=environment(),
            cwd=bus.directory,
            stdout=subprocess.PIPE,
            text=True,
        )
        while probe.poll() is None:  # a bound SUB subscribes only when its thread runs
            inbound.poll(10)
        assert probe.returncode == 2
        assert probe.stdout is not None
        assert re.search(r"took \d+ canaries and none came out of", probe.stdout.read())

    def test_a_stopped_relay_is_critical(self, bus: Bus) -> None:
        relay = bus.relay()
        with relay.paused():
            assert bus.tool("probe", "--timeout", "1").returncode == 2

    def test_each_inbound_address_is_probed(self, bus: Bus) -> None:
        second, third = f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
        bus.configure("z", relay_inbound=[bus.inbound, second])
        bus.relay()
        result = bus.probe()
        assert result.returncode == 0
        assert re.search(r"round_trip_1=\S+ms\S+ round_trip_2=\S+ms", result.stdout)
        bus.configure("z", relay_inbound=[third, bus.inbound])
        half = bus.tool("probe", "--timeout", "2")
        assert half.returncode == 2
        assert re.search(r"round_trip_1=U\S+ round_trip_2=[\d.]+ms", half.stdout)

    def test_a_host_on_the_ports_of_the_config(self, bus: Bus) -> None:
        bus.relay()
        bus.configure(
            "z",
            relay_inbound=bus.inbound.replace("127.0.0.1", "192.0.2.9"),
            endpoints={"relay_outbound": bus.outbound.replace("127.0.0.1", "192.0.2.9")},
        )
        result = bus.probe("--host", "127.0.0.1")
        assert result.returncode == 0
        assert bus.inbound in result.stdout

    def test_a_host_that_the_config_names_on_its_own_ports(self, bus: Bus) -> None:
        bus.relay()
        other, another = "tcp://192.0.2.9:4711", "tcp://192.0.2.9:4712"
        bus.configure(
            "z",
            relay_inbound=[other, bus.inbound],
            endpoints={"relay_outbound": [another, bus.outbound]},
        )
        result = bus.tool("probe", "--host", "127.0.0.1", "--timeout", "5")
        assert result.returncode == 0, result.stdout
        assert "471" not in result.stdout.partition("|")[0]

    @pytest.mark.parametrize(
        "options",
        [
            ["--nonsense"],
            ["--timeout", "0"],
            ["--warning", "x"],
            ["--inbound", "no-endpoint"],
            ["--config-filename", "/none"],
        ],
    )
    def test_what_cannot_be_checked_is_unknown(self, bus: Bus, options: list[str]) -> None:
        result = bus.tool("probe", *options)
        assert result.returncode == 3
        assert result.stdout.startswith("FEDMSG UNKNOWN - ")
        assert result.stdout.count("\n") == 1

    def test_probes_of_several_hosts_at_once_do_not_answer_each_other(self, bus: Bus) -> None:
        bus.relay()
        children = [
            Child(
                [*bus.command("probe"), *bus.PATIENT],
                env=environment(),
                cwd=bus.directory,
                stdout=subprocess.PIPE,
            )
            for _ in range(8)
        ]
        assert [child.wait(30) for child in children] == [0] * 8
