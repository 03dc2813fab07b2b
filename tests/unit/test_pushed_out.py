"""Messages that are pushed out of the backlog before their age: counted, and told of by topic."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fedmsg_relay import log
from fedmsg_relay.backlog import health, metrics
from fedmsg_relay.backlog.health import Feed
from fedmsg_relay.config import DEFAULTS
from fedmsg_relay.journal import recorder
from fedmsg_relay.journal.recorder import Recorder
from fedmsg_relay.journal.store import Row

from tests.support.waiting import wait_for

BOUND = 4 << 20


@contextmanager
def recording(path: Path) -> Iterator[Recorder]:
    made = Recorder({**DEFAULTS, "relay_journal": str(path), "relay_journal_max_bytes": BOUND})
    made.open()
    try:
        wait_for(lambda: made.state.state == "ok", what="the journal to be open")
        yield made
    finally:
        made.close()


def record(recorder: Recorder, topic: str, size: int, number: int) -> None:
    before = recorder.state.written
    for n in range(number):
        recorder.add([Row(recorder.now(), topic, f"{topic}-{before + n}", b"x" * size)])
    wait_for(lambda: recorder.state.written == before + number, what="all to be written")
    wait_for(lambda: not recorder.waiting, what="all to be written")


def feed(recorder: Recorder) -> Feed:
    made = Feed()
    made.take({"now": time.time(), "journal": json.loads(json.dumps(vars(recorder.state)))}, 0.0)
    return made


def test_one_publisher_pushes_all_others_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, log.NAME)
    with recording(tmp_path / "journal.db") as recorder:
        record(recorder, "small", 400, 200)
        assert recorder.state.trimmed_early == 0
        assert not [line for line in health.warnings(feed(recorder)) if "backlog" in line]
        record(recorder, "large\n", 1 << 20, 8)
        early = recorder.state.trimmed_early
        assert 200 < early < 208
        [warning] = [line for line in health.warnings(feed(recorder)) if "backlog" in line]
        assert f"{early} messages went before their age" in warning
        assert "topic 'large\\n'" in warning and "\n" not in warning
        text = metrics.text(feed(recorder), None, healthy=True).decode()
        assert f"fedmsg_relay_journal_trimmed_early_total {early}.0\n" in text
        record(recorder, "large\n", 1 << 20, 4)
        assert recorder.state.trimmed_early > early
    [line] = [each.getMessage() for each in caplog.records if "before their age" in each.message]
    assert "topic 'large\\n'" in line


def test_a_backlog_that_reaches_back_far_enough_is_only_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "SHORT", 0.0)
    with recording(tmp_path / "journal.db") as made:
        record(made, "large", 1 << 20, 8)
        assert made.state.trimmed_early > 0
        assert not [line for line in health.warnings(feed(made)) if "backlog" in line]
    assert "before their age" not in caplog.text
