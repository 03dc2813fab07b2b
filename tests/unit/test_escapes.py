"""What comes from the bus is shown escaped, wherever people see it."""

from __future__ import annotations

import io
import logging
import queue
import runpy
from pathlib import Path
from typing import Any

from fedmsg_relay import config as global_config
from fedmsg_relay import log, nagios
from fedmsg_relay.backlog import health, metrics
from fedmsg_relay.escapes import escaped, escaped_lines
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ROOT

# Harmless ones of each kind: an escape, C1, line ends, marks of direction, what is no character.
MARKS = "a\x1b[1m\x9b1m\r\n\x0b\x85\u2028\u202e\u200f\ue000\ud800\x7f"

# Of all characters, and of those more that it is about.
texts = st.text(st.one_of(st.characters(), st.sampled_from(MARKS)))


@given(texts)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    shown.encode()  # any stream takes it
    assert escaped(shown) == shown


@given(texts)
def test_what_is_printable_stays(text: str) -> None:
    printable = "".join(filter(str.isprintable, text))
    assert escaped(printable) == printable


@given(texts)
def test_no_line_but_the_first_stands_at_the_margin(text: str) -> None:
    first, *others = escaped_lines(text).split("\n")
    assert len(others) == text.count("\n")
    assert all(line.startswith("| ") for line in others)
    assert all(map(str.isprintable, [first, *others]))


@given(texts)
def test_the_control_host_shows_the_same(text: str) -> None:
    assert _printable(text) == escaped(text)


_printable = runpy.run_path(str(ROOT / "plugins/filter/check_report.py"))["printable"]


@given(texts)
def test_a_probe_says_one_line(text: str) -> None:
    report = nagios.Report()
    report.add(nagios.CRITICAL, text)
    report.perfdata.append("time=1s")
    line = report.line("FEDMSG")
    assert line.isprintable()
    assert line.count("|") == 1


@given(texts)
def test_a_label_of_a_metric_is_one_line(text: str) -> None:
    state = {"counts": {"dropped": {text: 3}}, "listener_protocols": {text: 2}}
    exposed = metrics.text(health.Feed(state), None, True).decode()
    assert all(map(str.isprintable, exposed.split("\n")))
    found = [
        sample.labels["cause"]
        for family in text_string_to_metric_families(exposed)
        for sample in family.samples
        if sample.name == "fedmsg_relay_messages_total" and sample.value == 3
    ]
    assert found == [escaped(text)]


class TestLog:
    """The daemon's log, by the queue that every line goes through."""

    def lines(self, tmp_path: Path, say: Any) -> list[str]:
        path = tmp_path / "log"
        with log.started(global_config.complete({"relay_log": str(path)})):
            say(logging.getLogger(log.NAME))
        return path.read_bytes().decode().split("\n")[:-1]

    def test_an_argument(self, tmp_path: Path) -> None:
        [line] = self.lines(tmp_path, lambda logger: logger.warning("odd: %s", MARKS))
        assert line.endswith("odd: " + escaped(MARKS))
        assert line.isprintable()

    def test_an_exception(self, tmp_path: Path) -> None:
        def say(logger: logging.Logger) -> None:
            try:
                raise ValueError(f"\n[2026-01-01 00:00:00][fedmsg.relay    INFO] ready{MARKS}")
            except ValueError:
                logger.exception("internal error")

        first, *others = self.lines(tmp_path, say)
        assert first.endswith("internal error")
        assert any("Traceback" in line for line in others)
        assert all(line.startswith("| ") and line.isprintable() for line in others)

    @given(texts)
    def test_any_text(self, text: str) -> None:
        # The handler alone: a file for each text would be slow.
        backlog: queue.Queue[logging.LogRecord] = queue.Queue()
        record = logging.LogRecord("n", logging.INFO, "", 0, "said: %s", (text,), None)
        log._QueueHandler(backlog).handle(record)
        assert backlog.get_nowait().getMessage() == f"said: {escaped(text)}"


def test_a_stream_is_a_terminal_wherever_the_config_sends_lines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    logger = logging.getLogger("tests.escapes")
    logger.propagate = False
    logger.handlers = [logging.StreamHandler(io.StringIO())]
    assert not log.is_on_a_terminal(logger)
    logger.handlers.append(logging.StreamHandler(Terminal()))
    assert log.is_on_a_terminal(logger)
