"""A config that is read otherwise than upstream reads it sends messages to the wrong place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fedmsg_relay import config
from fedmsg_relay.errors import ConfigError


def write(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_files_of_a_directory_merge_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, "b.py", "config = {'endpoints': {'b': 'tcp://b:1'}, 'environment': 'stg'}")
    write(tmp_path, "a.py", "config = {'endpoints': {'a': ['tcp://a:1']}, 'environment': 'prod'}")
    write(tmp_path, "ignored.txt", "this is not Python")
    loaded = config.load(str(tmp_path))
    assert loaded["environment"] == "stg"
    assert loaded["endpoints"] == {"a": ["tcp://a:1"], "b": ["tcp://b:1"]}


def test_dicts_merge_at_any_depth_and_lists_replace(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "config = {'d': {'e': {'x': 1, 'y': [1]}, 'f': 1}, 'g': {'h': 1}}")
    write(tmp_path, "b.py", "config = {'d': {'e': {'y': [2], 'z': 3}}, 'g': 5}")
    loaded = config.load(str(tmp_path))
    assert loaded["d"] == {"e": {"x": 1, "y": [2], "z": 3}, "f": 1}
    assert loaded["g"] == 5


def test_defaults_are_upstreams(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, "a.py", "config = {}"))
    expected = {
        "relay_inbound": ["tcp://127.0.0.1:2003"],
        "endpoints": {"relay_outbound": ["tcp://127.0.0.1:4001"]},
        "topic_prefix": "org.fedoraproject",
        "environment": "dev",
        "high_water_mark": 0,
        "io_threads": 1,
        "post_init_sleep": 0.5,
        "zmq_linger": 1000,
        "zmq_tcp_keepalive": 1,
        "zmq_tcp_keepalive_cnt": 3,
        "zmq_tcp_keepalive_idle": 60,
        "zmq_tcp_keepalive_intvl": 5,
        "zmq_reconnect_ivl": 100,
        "zmq_reconnect_ivl_max": 1000,
        "relay_log": None,
    }
    assert {key: loaded[key] for key in expected} == expected


def test_an_endpoints_dict_without_relay_outbound_gets_none(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, "a.py", "config = {'endpoints': {'x': 'tcp://x:1'}}"))
    assert loaded["endpoints"] == {"x": ["tcp://x:1"]}


@pytest.fixture
def upstream_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in each place upstream looks, each naming itself; a user who is not root."""
    places = {
        "etc/fedmsg.d/a.py": 1,
        "home/.fedmsg.d/a.py": 2,
        "cwd/fedmsg.d/a.py": 3,
        "venv/etc/fedmsg.d/a.py": 4,
        "etc/fedmsg-config.py": 5,
        "home/.fedmsg-config.py": 6,
        "cwd/fedmsg-config.py": 7,
    }
    for place, rank in places.items():
        write(tmp_path, place, f"config = {{'last': {rank}, 'seen': {{{rank}: 1}}}}")
    monkeypatch.setattr(config, "ETC_DIRECTORY", str(tmp_path / "etc/fedmsg.d"))
    monkeypatch.setattr(config, "ETC_FILE", str(tmp_path / "etc/fedmsg-config.py"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "venv"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def test_a_users_command_reads_all_of_upstreams_places_in_order(upstream_order: Path) -> None:
    loaded = config.load()
    assert list(loaded["seen"]) == [1, 2, 3, 4, 5, 6, 7]
    assert loaded["last"] == 7


@pytest.mark.usefixtures("upstream_order")
def test_a_daemon_reads_etc_alone() -> None:
    assert list(config.load(system=True)["seen"]) == [1, 5]


@pytest.mark.usefixtures("upstream_order")
def test_root_reads_etc_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert list(config.load()["seen"]) == [1, 5]


def test_a_given_path_is_all_that_is_read(upstream_order: Path) -> None:
    assert list(config.load(str(upstream_order / "cwd/fedmsg.d"))["seen"]) == [3]
    assert list(config.load(str(upstream_order / "cwd/fedmsg-config.py"))["seen"]) == [7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config = {\n  'a': 1,\n  b c\n}", "a.py:3: "),
        ("import os\n\nconfig = {'a': undefined}", "a.py:3: NameError"),
        ("def f():\n    return 1 / 0\nconfig = {'a': f()}", "a.py:2: ZeroDivisionError"),
        ("import sys\nsys.exit(3)", "a.py:2: SystemExit"),
        ("settings = {}", "a.py: must define a dict named 'config'"),
        ("config = []", "a.py: must define a dict named 'config'"),
        ("config = {'endpoints': []}", "'endpoints' must be a dict"),
        ("config = {'endpoints': {'a': 5}}", "endpoints['a'] must be an address"),
        ("config = {'relay_inbound': None}", "relay_inbound must be an address"),
        ("config = {'zmq_linger': 'soon'}", "'zmq_linger' must be a whole number"),
        ("config = {'post_init_sleep': -1}", "'post_init_sleep' must be a number of at least 0"),
        ("config = {'timeout': 1e999}", "'timeout' must be a number of at most 2147483, not inf"),
        ("config = {'timeout': 'inf'}", "'timeout' must be a number of at most 2147483, not inf"),
        ("config = {'zmq_linger': 1 << 31}", "must be a whole number of at most 2147483647, not"),
        ("config = {'relay_journal_max_bytes': 1 << 63}", "must be a whole number of at most 9"),
        ("config = {'io_threads': True}", "'io_threads' must be a whole number"),
        ("config = {'io_threads': 0}", "'io_threads' must be a whole number of at least 1"),
        ("config = {'environment': ''}", "'environment' must be a string"),
        ("config = {'relay_log': 5}", "'relay_log' must be a path"),
        ("config = {'relay_sop': 'sop.html'}", "relay_sop must be a link such as"),
        ("config = {'relay_sop': 'javascript:1'}", "relay_sop must be a link such as"),
        ("config = {'relay_sop': 'https://x/a b'}", "relay_sop must be a link such as"),
        ("config = {'relay_sop': ['https://x/']}", "relay_sop must be a link such as"),
        ("config = {'logging': 'INFO'}", "'logging' must be a dict"),
    ],
)
def test_a_bad_file_is_named_with_its_line_or_key(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "a.py", text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.py: no such file"):
        config.load(str(tmp_path / "nothing.py"))
    with pytest.raises(ConfigError, match=r"no \*\.py file"):
        config.load(str(tmp_path))


def test_numbers_may_be_strings_as_upstream_takes_them(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, "a.py", "config = {'zmq_linger': '5', 'timeout': '.5'}"))
    assert (loaded["zmq_linger"], loaded["timeout"]) == (5, 0.5)
