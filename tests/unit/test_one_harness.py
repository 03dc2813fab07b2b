"""There is one way to start a program, to wait, to find a port and to let a program hang."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import ROOT

# What runs on a host, or by another interpreter, has none of ours beside it.
ELSEWHERE = (
    "tests/support/",
    "tests/sop/on_host/",
    "tests/peer/upstream/",
    "tests/servers/programs/",
)

STARTS = "starts a program by itself: tests.support.programs has Child, Program and run"
FINDS = "finds a port by itself: tests.support.ports has free_port, free_address and server"
SLEEPS = "sleeps: tests.support.waiting has wait_for and nothing_comes"
HANGS = "stops a program by itself: Program and Child have pause, resume and paused"

# By rule: where it is broken, and why it has to be. One that is not broken any more must go.
EXCEPTIONS: dict[str, dict[str, str]] = {
    STARTS: {},
    FINDS: {},
    SLEEPS: {
        "bench/load.py::Load.pause": "waits as long as something still comes",
        "bench/load.py::Load.run_for": "measures for so many seconds",
        "bench/newcomers.py::waits": "keeps to a rate",
        "bench/sender.py::Sender._prepare": "is a program that is measured with",
        "bench/sender.py::Sender._send_by_the_clock": "keeps to a rate",
        "bench/sender.py::Sender._send_by_the_window": "is a program that is measured with",
        "bench/starts.py::_submit_over_a_restart": "measures for so many seconds",
        "bench/starts.py::restart": "measures for so many seconds",
        "bench/submits.py::one_shot": "measures for so many seconds",
        "bench/submits.py::pipelined": "measures for so many seconds",
        "bench/throughput.py::_settle": "waits as long as the journal still grows",
        "molecule/legacy/tests/former.py::settle": "waits as long as something still comes",
        "molecule/shared/flow.py::Flow.report": "waits as long as something may still come",
        "molecule/shared/hosts.py::_fault": "is a program without the tests beside it",
        "tests/fuzz/run.py::main": "attacks for so many seconds",
        "tests/integration/test_allow.py::ends_connection": "reads on for so many seconds",
        "tests/integration/test_allow.py::round_trips": "keeps to a rate",
        "tests/integration/test_backlog.py::TestOfTheRelay.test_no_client_delays_the_bus": "keeps"
        " to a rate",
        "tests/integration/test_crash.py::test_killed_at_random_moments_under_load": "a random"
        " moment, and a rate",
        "tests/integration/test_one_sender.py::"
        "test_three_at_once_and_scripts_that_come_and_go": "does what upstream does",
        "tests/integration/test_relay_messages.py::"
        "test_legacy_publishers_that_use_pub_and_sleep_are_heard": "does what upstream does",
        "tests/integration/test_relay_start.py::"
        "test_a_relay_stopped_while_it_holds_emits_what_it_holds": "nothing says when it is in",
        "tests/peer/test_noise.py::test_frame_that_could_fill_the_memory": "keeps to a rate",
        "tests/sop/drill.py::Drill._time": "times a person",
        "tests/sop/drill.py::wait_until": "goes on if the alert does not come",
        "tests/sop/traffic.py::Traffic.cost": "waits as long as something may still come",
        "tests/sop/trial.py::Trial._incident": "looks again after a second, by intention",
        "tests/sop/trial.py::try_for": "tries a page's command for as long as the page says",
        "tests/unit/test_submitter.py::TestLibzmq.test_a_router_that_asks_for_signs_of_life": "is"
        " silent for too long, by intention",
    },
    HANGS: {},
}


def sources() -> list[Path]:
    found = [path for top in ("tests", "bench", "molecule") for path in ROOT.glob(f"{top}/**/*.py")]
    return [path for path in found if not name_of(path).startswith(ELSEWHERE)]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def broken(node: ast.AST) -> Iterator[str]:
    """The rules that a node breaks."""
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        if called == "Popen":
            yield STARTS
        if called == "bind_to_random_port" or (
            called in ("bind", "create_server", "create_connection") and has_port_0(node)
        ):
            yield FINDS
        if called == "sleep":
            yield SLEEPS
    elif isinstance(node, ast.While) and any(
        isinstance(each, ast.Attribute) and each.attr in ("monotonic", "perf_counter")
        for each in ast.walk(node.test)
    ):
        yield SLEEPS
    elif isinstance(node, ast.Attribute) and node.attr == "SIGSTOP":
        yield HANGS


def has_port_0(call: ast.Call) -> bool:
    """Whether the first argument is an address with port 0: the kernel is to choose one."""
    address = call.args[0] if call.args else None
    return (
        isinstance(address, ast.Tuple)
        and len(address.elts) > 1
        and isinstance(address.elts[1], ast.Constant)
        and address.elts[1].value == 0
    )


def found_in(name: str, tree: ast.AST, within: str = "") -> Iterator[tuple[str, str]]:
    """Each broken rule, and where: `path::function`."""
    for node in ast.iter_child_nodes(tree):
        inner = within
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            inner = f"{within}.{node.name}".strip(".")
        for rule in broken(node):
            yield rule, f"{name}::{within}"
        yield from found_in(name, node, inner)


@pytest.fixture(scope="module")
def found() -> dict[str, set[str]]:
    places: dict[str, set[str]] = {rule: set() for rule in EXCEPTIONS}
    for path in sources():
        for rule, place in found_in(name_of(path), ast.parse(path.read_text(encoding="utf-8"))):
            places[rule].add(place)
    return places


@pytest.mark.parametrize("rule", EXCEPTIONS)
def test_nothing_else_does(found: dict[str, set[str]], rule: str) -> None:
    assert sorted(found[rule] - EXCEPTIONS[rule].keys()) == [], rule


@pytest.mark.parametrize("rule", EXCEPTIONS)
def test_every_exception_is_still_one(found: dict[str, set[str]], rule: str) -> None:
    assert sorted(EXCEPTIONS[rule].keys() - found[rule]) == []


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("subprocess.Popen(['true'])", STARTS),
        ("socket.create_server(('127.0.0.1', 0))", FINDS),
        ("probe.bind(('', 0))", FINDS),
        ("relay.bind_to_random_port('tcp://127.0.0.1')", FINDS),
        ("while not ready():\n    time.sleep(0.1)", SLEEPS),
        ("while time.monotonic() < end:\n    pass", SLEEPS),
        ("time.sleep(1)", SLEEPS),
        ("os.kill(relay.pid, signal.SIGSTOP)", HANGS),
    ],
)
def test_each_is_seen(source: str, rule: str) -> None:
    assert list(found_in("x.py", ast.parse(source))) == [(rule, "x.py::")]


@pytest.mark.parametrize(
    "source",
    ["Child(['true'])", "probe.bind(('', port))", "wait_for(ready)", "relay.pause()"],
)
def test_what_is_no_harm_is_none(source: str) -> None:
    assert list(found_in("x.py", ast.parse(source))) == []
