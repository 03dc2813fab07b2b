"""docs/sop.adoc: it has every fact of the page that it replaces, and what it names exists.

The page is read while something is broken. A path, an option or a line of output that has changed
since must fail here, not there.
"""

from __future__ import annotations

import ast
import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fedmsg_relay import config, logger, probe, tail
from fedmsg_relay.checks import wire
from fedmsg_relay.daemon import outbound
from fedmsg_relay.journal import recorder

from tests.conftest import ROOT

SOP = ROOT / "docs/sop.adoc"
ATTRIBUTE = re.compile(r"^:([\w-]+): (.*)\n", re.MULTILINE)
ATTRIBUTES = dict(ATTRIBUTE.findall((ROOT / "docs/include/variables.adoc").read_text()))
WRITTEN = [SOP, *sorted((ROOT / "docs/incidents").glob("*.adoc"))]


def with_includes(path: Path) -> str:
    def included(match: re.Match[str]) -> str:
        file = path.parent / match[1]
        return with_includes(file) if file.exists() else ""

    return re.sub(r"^include::(.*)\[.*\]$", included, path.read_text(), flags=re.MULTILINE)


def with_values(text: str) -> str:
    values = dict(ATTRIBUTE.findall(text))
    text = ATTRIBUTE.sub("", text)
    return re.sub(r"\{([\w-]+)\}", lambda match: values.get(match[1], match[0]), text)


SOURCE = with_values(with_includes(SOP))
# Lines are wrapped anywhere.
TEXT = re.sub(r"\s+", " ", SOURCE)

BASE_DEFAULTS = yaml.safe_load((ROOT / "roles/fedmsg_base/defaults/main.yml").read_text())
BASE_VARS = yaml.safe_load((ROOT / "roles/fedmsg_base/vars/main.yml").read_text())
RELAY_DEFAULTS = yaml.safe_load((ROOT / "roles/fedmsg_relay/defaults/main.yml").read_text())
PRODUCTION = yaml.safe_load((ROOT / "inventory/production/hosts.yml").read_text())


# The page that this one replaces


@pytest.mark.parametrize(
    "fact",
    [
        # Contact
        "Bridges ephemeral bash and python scripts into the fedmsg bus",
        "Owner:: Messaging SIG, Fedora Infrastructure Team",
        "Contact:: #fedora-apps, #fedora-admin, #fedora-noc",
        "Servers:: busgateway01, formerly app01",
        "Purpose:: Bridge ephemeral bash and python scripts into the fedmsg bus",
        # Where it runs, and why there
        "The relay once ran on app01. That was a bad choice",
        "busgateway01 is more isolated",
        # What depends on it
        "All ephemeral scripts depend on the relay",
        "The post-receive git hook on pkgs01",
        "`pkgdb2branch.py`, and whatever calls `fedmsg-logger`",
        'do not emit "directly" to the rest of the bus, it is their intermediary',
        # Is it running, how to restart it, where is its log
        "The process list shows none of the three",
        "the unit is active, its ports are bound, and a message comes through",
        "$ sudo systemctl restart fedmsg-relay",
        "`sudo service fedmsg-relay restart`",
        "`/var/log/fedmsg/fedmsg-relay.log`",
        # How scripts find it
        "the same global config",
        "`relay_inbound`:: Where scripts connect",
        '`endpoints["relay_outbound"]`:: Where listeners connect',
        # What it does, and why
        "But what is it doing? And why?",
        "emitting is passive and listening is active",
        "A mod_wsgi process under httpd binds a port, its publisher socket, and emits there",
        "A service that wants these messages has to know where that is, and connects",
        "pkgdb2branch.py runs when a user runs it and ends shortly after",
        "A listener that tries to connect to it finds, nearly always, that it is not there",
        "the adaptor, from passive to passive",
        "binds an outbound port, where it publishes as any service of the bus does",
        "also binds an inbound port, where it waits for messages",
        "it is the script that is active: it connects",
        "echoes the message on its outbound port, to all listeners",
        "http://fedmsg.readthedocs.org/en/latest/topology/",
    ],
)
def test_fact_is_there(fact: str) -> None:
    assert fact in TEXT


# How it reads


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> str:
    if shutil.which("asciidoctor") is None:
        pytest.skip("asciidoctor is not installed: make docs installs it")
    page = tmp_path_factory.mktemp("docs") / "sop.html"
    # Verbose, or else it says nothing of a reference that leads nowhere.
    done = subprocess.run(
        ["asciidoctor", "--verbose", "--failure-level=WARN", f"--out-file={page}", SOP],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return page.read_text()


def test_page_needs_nothing_from_elsewhere(rendered: str) -> None:
    assert not re.search(r"<(link|script|img)\b[^>]*\bhttps?:", rendered)


def test_page_shows_what_was_written(rendered: str) -> None:
    shown = html.unescape(re.sub(r"<[^>]*>", "", rendered))
    # What asciidoctor would have taken for markup.
    for written in ('endpoints["relay_outbound"]', "'\"relay_(inbound|outbound|submit)\": '"):
        assert written in shown
    assert "<<" not in shown
    # A block without subs="attributes+" shows names in place of values.
    assert set(re.findall(r"\{([a-z]\w+)\}", shown)) & ATTRIBUTES.keys() == set()


def test_nothing_is_left_for_the_reader_to_fill_in() -> None:
    for command in command_lines():
        assert not re.search(r"<[a-z]", command)
    assert "in the standard way" not in TEXT
    assert "should just work" not in TEXT


def test_each_command_says_on_which_host_it_runs() -> None:
    blocks = re.findall(r"^(.*)\n\[source[.\w-]*,console\b.*\]$", SOURCE, re.MULTILINE)
    hosts = r"\.On (busgateway0[12]|pkgs01|app01|the control host)(, .+)?"
    assert [title for title in blocks if not re.fullmatch(hosts, title)] == []
    assert len(re.findall(r"^\[source", SOURCE, re.MULTILINE)) == len(blocks)


def test_incident_has_the_budget_of_its_severity() -> None:
    budgets = {
        incident: minutes
        for minutes, incidents in re.findall(
            r"^\|(\d+) minutes\n\|((?:.|\n)*?)\n\n?\|", SOURCE, re.M
        )
        for incident in re.findall(r"<<([\w-]+)>>", incidents)
    }
    said = re.findall(r"^\[#([\w-]+)\.incident\]$(?:.|\n)*?\[\.budget\]#(\d+)#", SOURCE, re.M)
    assert len(said) >= 10
    assert dict(said).items() <= budgets.items()
    assert budgets.keys() - dict(said).keys() == set()


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_values_of_the_roles_are_not_written_by_hand(path: Path) -> None:
    text = re.sub(r"^\.{4}\n.*?^\.{4}\n", "", path.read_text(), flags=re.M | re.S)
    ports = r"\b(2003|2004|4001|4002|9941|9942|3998|3999)\b"
    paths = r"/var/(log|lib|spool)/fedmsg|/etc/fedmsg\.d"
    assert re.findall(f"^.*(?:{ports}|{paths}).*$", text, re.M) == []


def test_diagram_is_the_readme_s() -> None:
    [diagram] = re.findall(r"^\.{4}\n(.*?)^\.{4}\n", SOURCE, re.MULTILINE | re.DOTALL)
    assert diagram in (ROOT / "README.md").read_text()


# What it names


def command_lines() -> list[str]:
    """What is typed: after `$ `, and on lines that a backslash continues; and in the text."""
    lines = re.findall(r"^\$ ((?:.*\\\n)*.*)$", SOURCE, re.MULTILINE)
    lines += re.findall(r"`((?:sudo|systemctl|getent|ip|df) [^`]*)`", TEXT)
    return [line.replace("\\\n", " ") for line in lines]


def commands() -> list[list[str]]:
    """Every simple command of the page, as words, without sudo."""
    found = []
    for line in command_lines():
        # Of quoted text only what is run counts.
        line = re.sub(r"'[^']*'|2>&1|&\w+=\S*", "quoted", line).replace('"', "")
        for simple in re.split(r"\$\(|[|;&]", line):
            words = simple.replace(")", " ").split()
            if words:
                found.append(without_sudo(words))
    return found


def without_sudo(command: list[str]) -> list[str]:
    if command[0] != "sudo":
        return command
    return command[3:] if command[1] == "-u" else command[1:]


SYSTEM = {
    "ansible-playbook",
    "awk",
    "chown",
    "chronyc",
    "cp",
    "curl",
    "cut",
    "df",
    "dmesg",
    "echo",
    "exit",
    "find",
    "firewall-cmd",
    "getent",
    "git",
    "grep",
    "head",
    "ip",
    "journalctl",
    "kill",
    "ls",
    "mkdir",
    "mv",
    "nft",
    "paste",
    "pkill",
    "ps",
    "rm",
    "sed",
    "service",
    "sort",
    "ss",
    "ssh",
    "stat",
    "systemctl",
    "tail",
    "timeout",
    "tr",
    "uniq",
    "wc",
}
# The listener of the examples, which is upstream's.
LISTENER = "fedmsg-hub"


def test_each_program_exists() -> None:
    ours = {path.name for path in (ROOT / "files/bin").iterdir()} | {"fedmsg-relay"}
    named = {command[0] for command in commands()}
    assert named <= SYSTEM | ours
    assert ours <= named


@pytest.mark.parametrize(
    ("program", "main"),
    [("fedmsg-logger", logger.main), ("fedmsg-probe", probe.main), ("fedmsg-tail", tail.main)],
)
def test_each_option_of_ours_exists(
    program: str, main: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    offered = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    used = {
        word for command in commands() if command[0] == program for word in command if "--" in word
    }
    assert used <= offered


def test_the_unit_is_ours() -> None:
    words = [word for command in commands() if command[0] == "systemctl" for word in command]
    units = {word for word in words if word.startswith("fedmsg-")}
    assert units >= {"fedmsg-relay", "fedmsg-relay.socket", LISTENER}
    units |= set(re.findall(r"fedmsg-\w+\.(?:service|socket|timer|path)", SOURCE))
    for unit in units - {LISTENER, f"{LISTENER}.service"}:
        name = unit if "." in unit else f"{unit}.service"
        assert (ROOT / f"templates/{name}.j2").exists()


def test_each_playbook_and_inventory_exists() -> None:
    named = set(re.findall(r"\b(?:playbooks|inventory)/[\w./-]*\w", SOURCE))
    assert named >= {"playbooks/check.yml", "playbooks/deploy.yml", "inventory/production"}
    for name in named:
        assert (ROOT / name).exists()


def test_each_path_is_what_the_roles_deploy() -> None:
    named = set(re.findall(r"(?<![\w/.:])/(?:etc|run|usr|var)/[\w./-]*\w", SOURCE))
    log = Path(BASE_DEFAULTS["fedmsg_base_relay_log"])
    directory = BASE_VARS["__fedmsg_base_config_directory"]
    journal = Path(BASE_DEFAULTS["fedmsg_base_relay_journal"])
    spool = Path(BASE_DEFAULTS["fedmsg_base_publisher_spool"])
    ours = {log, log.parent, journal, journal.parent, spool, spool / "failed"}
    ours |= {Path(f"{log}.1"), Path(ATTRIBUTES["fedmsg_relay_logrotate_path"])}
    # What a takeover finds, and where it keeps that; molecule/legacy does what the page says of it.
    units = Path("/etc/systemd/system")
    ours |= {units / f"fedmsg-relay.{kind}" for kind in ("service", "socket", "service.d")}
    ours |= {Path("/usr/bin/fedmsg-relay"), Path("/usr/bin/fedmsg-logger")}
    ours |= {Path("/var/backups/fedmsg-relay")}
    assert named >= {directory, *map(str, ours)}
    ours_by_name = {path for path in named if "fedmsg" in path}
    assert {path for path in ours_by_name if not path.startswith(f"{directory}/")} <= {
        directory,
        *map(str, ours),
    }


def test_each_file_of_the_config_is_what_the_roles_deploy() -> None:
    named = set(re.findall(r"`(\w+\.py)`", SOURCE)) - {"pkgdb2branch.py"}
    assert named == set(BASE_VARS["__fedmsg_base_rendered_now"]["config"])


def test_ports_are_the_roles_and_the_inventory_s() -> None:
    [inbound] = BASE_VARS["__fedmsg_base_default_inbound_ports"]
    outbound = BASE_VARS["__fedmsg_base_default_outbound_port"]
    submit = BASE_VARS["__fedmsg_base_default_submit_port"]
    http = int(BASE_VARS["__fedmsg_base_default_http"][0].rpartition(":")[2])
    production = PRODUCTION["fedmsg_bus"]["vars"]
    first, second = production["fedmsg_base_relay_inbound_ports"]
    third = production["fedmsg_base_relay_outbound_port"]
    fourth = production["fedmsg_base_relay_submit_port"]
    assert f"defaults, {inbound} inbound, {submit} submit and {outbound} outbound" in TEXT
    assert f"Fedora's: {first} and {second} inbound, {fourth} submit, {third} outbound" in TEXT
    named = set(re.findall(r"tcp://[\w.]+:(\d+)|port (\d{4})|:(\d{4}) ", SOURCE))
    assert {int(a or b or c) for a, b, c in named} == {inbound, submit, outbound, http}


def test_numbers_are_the_roles_and_the_programs() -> None:
    for said in (
        f"after {RELAY_DEFAULTS['fedmsg_relay_watchdog_sec']} seconds without a sign of life",
        f"Watchdog timeout (limit {RELAY_DEFAULTS['fedmsg_relay_watchdog_sec']}s)",
        f"tries every {RELAY_DEFAULTS['fedmsg_relay_restart_sec']} seconds",
        f"starts by itself within {RELAY_DEFAULTS['fedmsg_relay_restart_sec']} seconds",
        f"{RELAY_DEFAULTS['fedmsg_relay_logrotate_keep']} old ones are kept",
        f"larger than {RELAY_DEFAULTS['fedmsg_relay_logrotate_maxsize']}B",
        f"They wait {config.DEFAULTS['timeout']} seconds, say on standard error that",
        f"{outbound.QUEUE_MESSAGES:,} messages or {outbound.QUEUE_BYTES >> 20} MiB",
        f"for {outbound.HOLD_LEAST:g} seconds, or longer where",
        f"`hold: given up early, {outbound.QUEUE_MESSAGES} messages were held`",
        f"what it could not write, {recorder.WAITING_BYTES >> 20} MiB of it",
        f"for {config.DEFAULTS['relay_journal_max_age'] // 86400} days",
        f"A spool that is full, {config.DEFAULTS['publisher_spool_max_bytes'] >> 30} GiB",
        f"`zmq_reconnect_ivl_max` ({BASE_DEFAULTS['fedmsg_base_zmq_reconnect_ivl_max'] // 1000} s",
        f"{BASE_DEFAULTS['fedmsg_base_relay_max_message_bytes'] // 2**20} MiB unless set",
        "500 ms is a warning, 2000 ms critical",
    ):
        assert said in TEXT


def test_the_probe_s_limits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        probe.main(["--help"])
    offered = capsys.readouterr().out
    assert re.search(r"--warning MS\s+round trip \(500", offered)
    assert re.search(r"--critical MS\s+round trip \(2000", offered)


PROGRAMS = [ROOT / "relay.py", *sorted((ROOT / "files/fedmsg_relay").rglob("*.py"))]


def strings(*paths: Path) -> str:
    """All string constants of Python files, f-strings included, one after the other."""
    found = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize(
    "words",
    [
        "nothing is acknowledged by submit",
        "the port is open but no relay answers",
        "scripts cannot publish to inbound",
        "connection refused",
        "no reply from this address",
        "cannot resolve",
        "canaries and none came out",
    ],
)
def test_the_probe_s_words(words: str) -> None:
    assert f"|`{words}`" in SOURCE
    if words != "connection refused":  # the system's own
        files = ("probe", "publishing/diagnosis", "endpoints")
        assert words in strings(*(ROOT / f"files/fedmsg_relay/{name}.py" for name in files))


@pytest.mark.parametrize(
    "words",
    [
        "cannot bind",
        "the port is held by",
        "no address of this machine",
        "relay_log: cannot write",
        "no other machine can reach it",
        "; more of these are only counted",
    ],
)
def test_the_relay_s_words(words: str) -> None:
    assert words in TEXT
    assert words in strings(*PROGRAMS)


@pytest.mark.parametrize(
    "words",
    [
        "hangs",
        "has only just started",
        "the log cannot be written",
        "was too slow and missed",
        "a flood",
        " in the last ",
    ],
)
def test_the_words_of_health(words: str) -> None:
    assert re.search(rf"`[^`]*{words.strip()}`", TEXT)
    assert words in strings(ROOT / "files/fedmsg_relay/backlog/health.py")


@pytest.mark.parametrize(
    "words",
    [
        "cannot be reached",
        "is not as it was deployed",
        "this host is no relay by the inventory",
        "nobody listens on",
        "not healthy",
        "spooled messages wait, the oldest for",
        "messages that no relay takes are in",
        "logs are not rotated",
    ],
)
def test_the_words_of_the_check_playbook(words: str) -> None:
    assert re.search(rf"^\|.*`{words}`", SOURCE, re.MULTILINE)
    assert words in (ROOT / "plugins/filter/check_report.py").read_text()


CAUSES = [v for name, v in vars(wire).items() if name.isupper() and isinstance(v, str)]


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_in_the_log_is_explained(cause: str) -> None:
    assert f"`{cause}`" in SOURCE


def logged_by_the_relay() -> list[str]:
    found = []
    for path in PROGRAMS:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "logger"
                and node.func.attr != "debug"
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                found.append(str(node.args[0].value))
    return found


@pytest.mark.parametrize("line", logged_by_the_relay())
def test_each_line_of_the_log_is_explained(line: str) -> None:
    quoted = re.findall(r"`([^`]*)`", TEXT)
    fixed = [part.strip(" ,:;") for part in re.split(r"%[\w.]+", line)]
    for words in filter(None, fixed):
        if words != "topic":
            assert any(words in quotation for quotation in quoted), f"the relay logs {line!r}"


def test_there_is_something_to_explain() -> None:
    assert len(logged_by_the_relay()) >= 8
    assert len(CAUSES) >= 8
