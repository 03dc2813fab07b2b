"""The bench's arithmetic and its messages: what is wrong here makes every figure wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fedmsg_relay.checks.wire import Checker

from bench import document, messages, results
from bench.document import MARKS
from bench.parts import PARTS
from bench.plan import Plan, alternated
from bench.processes import cpu_seconds, family, peak_memory
from bench.report import markdown
from bench.spread import Spread, percentile
from bench.subjects import JOURNAL, PROXY, UPSTREAM, kinds
from bench.targets import targets
from bench.throughput import Cell
from tests.support.programs import ROOT, Child
from tests.support.waiting import wait_for


class TestMessages:
    @pytest.mark.parametrize("size", [400, 4096, 65536])
    def test_have_the_size_and_pass_the_relay_untouched(self, size: int) -> None:
        body = messages.single(size, 17)
        assert len(body) == size
        checked = Checker(1 << 20).check([messages.TOPIC, body])
        assert checked.cause is None and checked.frames == [messages.TOPIC, body]

    def test_are_those_of_upstreams_publishers(self) -> None:
        body = messages.single(400, 17)
        compact = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))
        assert compact.encode() == body

    def test_have_a_number_and_a_stamp_that_are_found_again(self) -> None:
        before, between, random, after = messages.parts(400)
        number, stamp = 123_456, 987_654_321
        body = b"%b%020d%b%b%012d%b" % (before, stamp, between, random[7], number, after)
        assert len(body) == 400
        assert int(body[messages.place_of_number(body)]) == number
        assert int(body[messages.place_of_stamp(body)]) == stamp
        assert json.loads(body)["msg_id"].endswith(f"{number:012}")

    def test_have_msg_ids_at_random_places_of_an_index(self) -> None:
        random = messages.parts(400).random
        assert len(set(random)) > 0.99 * len(random)
        assert random != sorted(random)


def test_each_subject_has_a_turn_in_each_round_and_not_always_the_same_place() -> None:
    order = alternated(3, ["a", "b", "c"])
    assert order == [
        (0, "a"), (0, "b"), (0, "c"),
        (1, "b"), (1, "c"), (1, "a"),
        (2, "c"), (2, "a"), (2, "b"),
    ]  # fmt: skip


def test_checkouts_are_told_apart(tmp_path: Path) -> None:
    found = kinds([JOURNAL, PROXY], [tmp_path, tmp_path])
    assert [kind.name for kind in found] == [f"{JOURNAL}@1", f"{JOURNAL}@2", PROXY]


def test_percentiles_leave_out_as_many_as_they_say() -> None:
    values = list(range(1000))
    assert [percentile(values, share) for share in (0.5, 0.99, 0.999)] == [500, 990, 999]
    assert percentile([7], 0.999) == 7


def test_a_spread_shows_the_middle_and_both_ends() -> None:
    assert Spread.of([3000, 1000, 2000]).text() == "2,000 (1,000..3,000)"
    assert Spread.of([1.25]).text(2) == "1.25"


def test_a_table_is_aligned() -> None:
    assert markdown(["a", "b"], [["x", "1"], ["long", "1,000"]]) == [
        "| a    |     b |",
        "| ---- | ----: |",
        "| x    |     1 |",
        "| long | 1,000 |",
    ]


def test_processor_time_and_memory_are_those_of_a_process_and_its_children() -> None:
    # More than what is looked for: the kernel counts in hundredths, of each kind.
    burn = "import time\nwhile time.process_time() < 0.6: pass\n"
    source = (
        "import subprocess, sys, time\n"
        "block = bytearray(64 << 20)\n"
        f"subprocess.run([sys.executable, '-c', {burn!r}])\n"
        f"child = subprocess.Popen([sys.executable, '-c', {burn!r} + 'time.sleep(60)'])\n"
        "print('measure', flush=True)\n"
        "time.sleep(60)\n"
    )
    with Child([sys.executable, "-c", source], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        _, child = family(parent.pid)
        wait_for(lambda: cpu_seconds(child) >= 0.5, what="the child to have burnt it")
        # The child that has ended, and the one that has not.
        assert cpu_seconds(parent.pid) >= 1.0
        assert cpu_seconds(parent.pid, alone=True) < cpu_seconds(parent.pid) - 0.4
        assert peak_memory(parent.pid) > 64 << 20
        assert peak_memory(child) < 64 << 20
        parent.kill()
        os.kill(child, 9)


def row(subject: str, rate: float, **more: Any) -> dict[str, Any]:
    cpu = {"subject": 10.0, "alone": 10.0, "sender": 1.0, "listener": 1.0}
    place = {"subject": subject, "listeners": 1, "size": 400, "peers": "lean", "round": 0}
    return {
        **place,
        "cpu": cpu,
        "cores": 1.5,
        "messages": 1,
        "rate": rate,
        "missing": 0,
        "doubled": 0,
        **more,
    }


class TestTargets:
    ROWS = (
        row(JOURNAL, 60.0, journal_rate=50.0, unjournaled=0),
        row(UPSTREAM, 10.0),
        row(PROXY, 100.0),
    )

    def test_are_met_or_not_by_the_medians(self) -> None:
        found = targets({"throughput": {"rows": self.ROWS}})
        assert [target.is_met for target in found if "lean" in target.name] == [
            True, False, True, True,
        ]  # fmt: skip

    def test_say_what_has_not_been_measured(self) -> None:
        assert {target.is_met for target in targets({})} == {None}
        assert targets({})[0].cells()[-1] == "not measured"


class TestResults:
    def test_of_one_part_take_the_place_of_its_older_ones_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FEDMSG_PEER_VENV", sys.prefix)  # upstream is of no interest here
        plan = Plan((tmp_path,), (JOURNAL,))
        results.keep(tmp_path, "throughput", plan, [row(PROXY, 1.0)])
        results.keep(tmp_path, "latency", plan, [{"p50": 2.0}])
        results.keep(tmp_path, "throughput", plan, [row(PROXY, 123.456789)])
        found = results.load(tmp_path)
        assert [kept["rate"] for kept in found["throughput"]["rows"]] == [123.46]
        assert found["latency"]["rows"] == [{"p50": 2.0}]
        assert found["latency"]["where"]["SQLite"]

    def test_that_were_lost_are_shown(self) -> None:
        rows = [row(JOURNAL, 1.0, journal_rate=1.0, unjournaled=3, missing=2)]
        assert "2, 3 not on disk" in "\n".join(PARTS["throughput"].tables(rows))


class TestDocuments:
    """What is in git is what the results in git say: `make bench ARGS=report` writes it anew."""

    def test_the_readme_shows_the_ratios_of_the_results(self, tmp_path: Path) -> None:
        copy = tmp_path / "README.md"
        shutil.copy(ROOT / "bench" / "README.md", copy)
        document.publish(copy, results.load(ROOT / "bench" / "results"))
        assert copy.read_text() == (ROOT / "bench" / "README.md").read_text()

    def test_a_table_of_ratios_takes_the_place_of_the_one_before(self, tmp_path: Path) -> None:
        readme = tmp_path / "README.md"
        readme.write_text(f"before\n{MARKS[0]}\n{MARKS[1]}\nafter\n")
        for rate, ratio in ((60.0, "6 times upstream's"), (50.0, "5 times upstream's")):
            rows = [row(JOURNAL, rate, journal_rate=1.0, unjournaled=0), row(UPSTREAM, 10.0)]
            document.publish(readme, {"throughput": {"rows": rows}})
            text = readme.read_text()
            assert ratio in text and text.count("upstream's") == 1
            assert text.startswith("before\n") and text.endswith("\nafter\n")

    def test_the_results_are_shown_as_they_are(self, tmp_path: Path) -> None:
        copy = shutil.copytree(ROOT / "bench" / "results", tmp_path / "results")
        document.write(copy, results.load(copy))
        shown = (ROOT / "bench" / "results" / "results.md").read_text()
        assert (copy / "results.md").read_text() == shown

    def test_every_part_is_in_the_document_that_explains_it(self) -> None:
        text = (ROOT / "bench" / "README.md").read_text()
        assert [name for name in PARTS if f"| `{name}` |" not in text] == []


def test_cells_are_read_as_they_are_shown() -> None:
    assert Cell.parse("10x4096") == Cell(10, 4096)
    assert str(Cell(10, 4096)) == "10x4096"
