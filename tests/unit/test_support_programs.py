"""The harness itself: what it starts ends, what it waits for fails in time, and it slows."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import programs, slow, waiting
from tests.support.ports import free_port, is_free
from tests.support.programs import Child, Program, environment, state
from tests.support.waiting import nothing_comes, wait_for, within

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
COUNT = "import time\nwhile True: print(time.process_time(), flush=True)"


def program(tmp_path: Path, source: str, *, apart: bool = False) -> Program:
    return Program(tmp_path, [sys.executable, "-c", source], environment(), apart=apart)


class TestProgram:
    def test_what_it_prints_is_kept(self, tmp_path: Path) -> None:
        one = program(tmp_path, "import sys; print('a'); print('b', file=sys.stderr)")
        assert one.wait_for_end() == 0
        assert sorted(one.output.split()) == ["a", "b"]

    def test_errors_apart(self, tmp_path: Path) -> None:
        one = program(tmp_path, "import sys; print('a'); print('b', file=sys.stderr)", apart=True)
        assert one.wait_for_end() == 0
        assert (one.output, one.errors) == ("a\n", "b\n")

    def test_one_that_ends_is_not_waited_for(self, tmp_path: Path) -> None:
        one = program(tmp_path, "print('why'); raise SystemExit(7)")
        with pytest.raises(AssertionError, match=r"(?s)ended with 7.*why"):
            one.wait_for_line("ready")

    def test_what_it_said_last_counts(self, tmp_path: Path) -> None:
        one = program(tmp_path, "print('ready')")
        one.wait_for_end()
        one.wait_for_line("ready")

    def test_one_that_does_not_end_is_killed(self, tmp_path: Path) -> None:
        source = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up')"
        one = program(tmp_path, f"{source}\nwhile True: signal.pause()")
        one.wait_for_line("up")
        assert one.stop(timeout=0.01) == -signal.SIGKILL

    def test_nothing_outlives_the_tests(self, tmp_path: Path) -> None:
        source = (
            "import sys; from tests.support.programs import Child;"
            f" print(Child([sys.executable, '-c', {SLEEP[2]!r}], stdout=-3).pid)"
        )
        path = f"{programs.ROOT}:{programs.ROOT / 'files'}"
        done = programs.run([sys.executable, "-c", source], env=environment(PYTHONPATH=path))
        pid = int(done.stdout)
        assert not Path(f"/proc/{pid}").exists(), done.stderr

    def test_a_block_that_fails_kills_it(self) -> None:
        with pytest.raises(ZeroDivisionError), Child(SLEEP, stdout=-3) as child:
            _ = 1 / 0
        assert child.returncode == -signal.SIGKILL

    def test_one_that_is_paused_does_nothing(self, tmp_path: Path) -> None:
        one = program(tmp_path, COUNT)
        try:
            one.wait_for_line("0.")
            with one.paused():
                assert state(one.pid) == "T"
            wait_for(lambda: state(one.pid) != "T")
        finally:
            one.kill()


class TestSlow:
    def test_the_relay_and_its_backlog_and_nothing_else_are_slowed(self) -> None:
        assert slow.is_relay([sys.executable, str(programs.RELAY), "--check"])
        assert slow.is_relay(programs.module("backlog", "--journal", "x"))
        assert not slow.is_relay(programs.module("logger", "--message", "relay.py is mended"))

    @pytest.fixture
    def slowed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Program:
        monkeypatch.setattr(programs, "SLOWED", 10.0)
        script = tmp_path / "relay.py"
        script.write_text(COUNT)
        return Program(tmp_path, [sys.executable, script], environment())

    def test_it_gets_a_tenth(self, slowed: Program) -> None:
        """Of the time, and no more where nobody else wants a processor."""
        slowed.wait_for_line("0.")

        def share() -> float:
            before, began = cpu(slowed.pid), time.monotonic()
            wait_for(lambda: cpu(slowed.pid) > before + 0.2)
            return (cpu(slowed.pid) - before) / (time.monotonic() - began)

        # Where others keep the helper from its turn, one stretch may be longer.
        wait_for(lambda: share() < 0.2, what="no more than a tenth or so")
        slowed.kill()

    def test_it_can_hang_and_go_on(self, slowed: Program) -> None:
        slowed.wait_for_line("0.")
        with slowed.paused():
            assert state(slowed.pid) == "T"
            before = cpu(slowed.pid)
            nothing_comes(0.3, lambda: cpu(slowed.pid) > before, "a turn")
        wait_for(lambda: cpu(slowed.pid) > before)
        slowed.kill()

    def test_the_helper_ends_with_it(self, slowed: Program) -> None:
        brake = slowed.child._brake
        assert brake is not None
        slowed.kill()
        assert brake.returncode == 0


def cpu(pid: int) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


class TestWaiting:
    def test_the_value_is_given(self) -> None:
        values = iter([0, "", 7])
        assert wait_for(lambda: next(values)) == 7

    def test_in_vain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waiting, "PATIENCE", 1.0)
        with pytest.raises(AssertionError, match=r"waited 0.05 s in vain for rain"):
            wait_for(lambda: False, 0.05, "rain")

    def test_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waiting, "SLOWED", 1.0)
        monkeypatch.setattr(waiting, "pace", lambda: 1.0)
        with within(60):
            pass
        with pytest.raises(AssertionError, match=r"at most 0.15 s"), within(0.1):
            nothing_comes(0.2, lambda: False)

    def test_a_limit_on_a_machine_that_is_slow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waiting, "pace", lambda: 1000.0)
        with within(0.1):
            nothing_comes(0.2, lambda: False)

    def test_what_must_not_come(self) -> None:
        nothing_comes(0.05, lambda: False)
        with pytest.raises(AssertionError, match=r"rain came: 'drop'"):
            nothing_comes(60, lambda: "drop", "rain")


class TestPorts:
    def test_none_is_given_twice(self) -> None:
        ports = {free_port() for _ in range(200)}
        assert len(ports) == 200

    def test_two_processes_never_get_the_same(self) -> None:
        source = (
            "from tests.support.ports import free_port\n"
            "print(*[free_port() for _ in range(200)], flush=True); input()"
        )
        path = str(programs.ROOT)
        command = [sys.executable, "-c", source]
        pipes: dict[str, Any] = {
            "stdin": -1,
            "stdout": -1,
            "text": True,
            "env": environment(PYTHONPATH=path),
        }
        with Child(command, **pipes) as one, Child(command, **pipes) as other:
            lines = [child.stdout.readline() for child in (one, other) if child.stdout]
            one.communicate("\n")
            other.communicate("\n")
        first, second = ({int(port) for port in line.split()} for line in lines)
        assert len(first) == len(second) == 200
        assert not first & second

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
    def test_one_that_is_taken(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        port = free_port()
        with socket.create_server((host, port), family=family):
            assert not is_free(port)
        assert is_free(port)
