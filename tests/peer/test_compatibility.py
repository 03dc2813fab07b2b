"""docs/compatibility.adoc: every name of upstream's has a row, every row a test that shows it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fedmsg_relay
import pytest
from fedmsg_relay.backlog import query
from fedmsg_relay.checks import signatures
from fedmsg_relay.errors import SigningError

from tests.support import programs
from tests.support.programs import ROOT

from .bus import Bus
from .certificates import HOST, make_authority
from .fedmsg_crypto import trust

PAGE = (ROOT / "docs/compatibility.adoc").read_text()
TABLES = re.findall(r"^\[\[([\w-]+)\]\]\n", PAGE, re.MULTILINE)
HERE = ("same", "other", "refused", "upstream's")

# Asked of upstream's own Python. Its parsers have no list of their options, so each is built.
NAMES = r"""
import importlib, inspect, json, pathlib, re, sys
import fedmsg, fedmsg.config
from fedmsg.commands import BaseCommand

# The keys that have a default, and those that the documentation of the config has a section for.
keys = set(fedmsg.config.FedmsgConfig._defaults)
documented = re.findall(r"_conf-[\w.-]+:\n\n([\w.]+)\n-+\n", fedmsg.config.__doc__)
api = [name for name, value in vars(fedmsg).items()
       if inspect.isfunction(value) and value.__module__ == "fedmsg" and not name.startswith("_")]

def options(module, name):
    command = getattr(importlib.import_module("fedmsg.commands." + module), name)
    parser = fedmsg.config.build_parser(command.extra_args or [], "")
    return [word for action in parser._actions for word in action.option_strings]

print(json.dumps({
    "commands": [each.name for each in pathlib.Path(sys.prefix, "bin").glob("fedmsg-*")],
    "keys": sorted(keys | set(documented)),
    "api": api,
    "logger": options("logger", "LoggerCommand"),
    "tail": options("tail", "TailCommand"),
    "relay": options("relay", "RelayCommand"),
}))
"""


def rows(table: str) -> list[list[str]]:
    """The rows of one table: name, what it is here, how, and what shows it."""
    text = PAGE.split(f"[[{table}]]")[1].split("|===")[1]
    blocks = [block for block in text.split("\n\n") if block.strip()][1:]
    return [[cell.strip() for cell in re.split(r"^\|", row, flags=re.M)[1:]] for row in blocks]


def every_row() -> Iterator[Any]:
    for table in TABLES:
        for row in rows(table):
            yield pytest.param(row, id=f"{table}: {row[0]}")


def names_in(path: Path) -> set[str]:
    """`Class::test` and `test` of a file."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if hasattr(each, "name")}
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize("row", list(every_row()))
def test_a_row_is_whole_and_what_shows_it_is_there(row: list[str]) -> None:
    name, here, how, shown = row
    assert name and here in HERE
    assert here == "same" or how, "how it differs is not said"
    for proof in re.findall(r"`([^`]+)`", shown) or [""]:
        path, _, test = proof.partition("::")
        assert (ROOT / path).is_file(), proof
        assert path.startswith("findings/") or test in names_in(ROOT / path), proof


@pytest.fixture(scope="module")
def upstream(peer_venv: Path) -> dict[str, list[str]]:
    """The names that upstream's fedmsg has."""
    command = [str(peer_venv / "bin/python"), "-W", "ignore", "-c", NAMES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(names, dict)
    return names


@pytest.mark.parametrize("table", ["commands", "keys", "logger", "tail", "relay", "api"])
def test_every_name_of_upstreams_has_a_row(table: str, upstream: dict[str, list[str]]) -> None:
    names = [row[0].strip("`") for row in rows(table)]
    assert sorted(names) == sorted(set(upstream[table]) - {"-h", "--help"})


# What rows of the page point to


def test_commands_that_are_not_ours() -> None:
    ours = {path.name for path in (ROOT / "files/bin").iterdir()} | {"fedmsg-relay"}
    for name, here, *_ in rows("commands"):
        assert (name.strip("`") in ours) is (here == "same"), name


def test_upstreams_announce_is_relayed(bus: Bus, peer_venv: Path) -> None:
    bus.relay()
    with bus.listener() as listener, bus.publisher() as publisher:
        publisher.open_path_to(listener)
        command = [str(peer_venv / "bin/fedmsg-announce")]
        subprocess.run(
            command, cwd=bus.directory, env=bus.environment(), input=b"down at noon", check=True
        )
        topic, body = listener.receive()
    assert topic == b"org.fedoraproject.dev.announce.announcement"
    assert json.loads(body)["msg"]["message"] == "down at noon"


def test_keys_of_upstream_are_kept_and_do_not_disturb(
    bus: Bus, peer_venv: Path, upstream: dict[str, list[str]]
) -> None:
    program = (
        "import json, fedmsg.config as c;"
        "print(json.dumps({k: v['default'] for k, v in c.FedmsgConfig._defaults.items()}))"
    )
    command = [str(peer_venv / "bin/python"), "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    others = {row[0].strip("`") for row in rows("keys") if row[1] == "upstream's"}
    defaults = json.loads(done.stdout.splitlines()[-1])
    # Those that have no default are strings of some kind.
    keys = {key: defaults.get(key) or f"a value of {key}" for key in others}
    config = bus.config_file("all", **keys)
    printed = bus.logger("--print-config", config=config)
    assert printed.returncode == 0
    assert keys.items() <= json.loads(printed.stdout).items()
    bus.relay()
    with bus.listener() as listener, bus.publisher() as publisher:
        publisher.open_path_to(listener)
        assert bus.logger("--message", "hello", config=config).returncode == 0
        assert json.loads(listener.receive()[1])["msg"] == {"log": "hello"}


@pytest.mark.parametrize("key", ["ca_cert_location", "crl_location"])
def test_certificates_of_an_authority_are_files(tmp_path: Path, key: str) -> None:
    authority = make_authority(tmp_path / "fedmsg")
    authority.issue(f"shell-{HOST}")
    keys = trust(authority, certnames={f"shell.{HOST}": f"shell-{HOST}"})
    message = signatures.Signer(keys).sign({"topic": "t", "msg": {}})
    with pytest.raises(SigningError, match=r"cannot read https://pki\.example\.org/fedmsg\.pem"):
        signatures.why_invalid(message, {**keys, key: "https://pki.example.org/fedmsg.pem"})


def test_gpg_is_refused_by_name(bus: Bus) -> None:
    config = bus.config_file("gpg", sign_messages=True, crypto_backend="gpg")
    done = bus.logger("--message", "x", config=config)
    assert done.returncode == 2
    assert "crypto_backend 'gpg' is not supported, only 'x509'" in done.stderr


def test_options_of_tail_that_are_refused(bus: Bus) -> None:
    refused = [row[0].strip("`") for row in rows("tail") if row[1] == "refused"]
    assert refused
    for option in refused:
        for words in ([option], [option, "x"]):
            done = bus.tool("tail", *words)
            assert done.returncode == 2
            assert f"fedmsg-tail has no {option}: use " in done.stderr


def test_common_options_of_tail_are_taken(bus: Bus) -> None:
    words = ["--io-threads", "2", "--topic-prefix", "a", "--post-init-sleep", "1", "--no-validate"]
    words += ["--timeout", "3", "--high-water-mark", "7", "--linger", "9", "--print-config"]
    done = bus.tool("tail", *words)
    assert done.returncode == 0
    printed = json.loads(done.stdout)
    expected = {"io_threads": 2, "topic_prefix": "a", "timeout": 3, "high_water_mark": 7}
    assert {**expected, "zmq_linger": 9, "validate_signatures": False}.items() <= printed.items()


def test_options_that_the_daemon_refuses(bus: Bus) -> None:
    for option in [row[0].strip("`") for row in rows("relay") if row[1] == "refused"]:
        done = programs.run([sys.executable, programs.RELAY, option, "1"])
        assert done.returncode == 2
        assert f"fedmsg-relay has no {option}: " in done.stderr


def test_functions_that_are_not_ours() -> None:
    for name, here, *_ in rows("api"):
        assert hasattr(fedmsg_relay, name.strip("`")) is (here == "same")
        if here == "refused":
            with pytest.raises(AttributeError, match=r": use \w+"):
                getattr(fedmsg_relay, name.strip("`"))


# What datagrepper 1.1.0 reads (datagrepper.app, `raw` and `msg_id`).
WORDS = {
    *("start", "end", "delta", "user", "package", "category", "topic", "contains", "meta", "id"),
    *("not_user", "not_package", "not_category", "not_topic", "page", "rows_per_page", "order"),
    *("size", "chrome", "callback", "is_raw"),
}
# What else its users send it: a browser's way around a cache.
WORDS |= {"_"}


def test_every_word_of_datagreppers_has_a_row() -> None:
    assert {row[0].strip("`") for row in rows("words")} == WORDS


def test_words_that_are_refused() -> None:
    for name, here, *_ in rows("words"):
        word = name.strip("`")
        if here == "refused":
            with pytest.raises(query.BadQuery, match=f"no parameter '{word}' here: "):
                query.parse(f"{word}=x", 10_000.0)
        elif word != "id":
            value = {"order": "asc", "contains": "x&topic=y"}.get(word, "9")
            query.parse(f"{word}={value}", 10_000.0)
