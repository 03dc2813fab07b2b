"""The spool is for all users of a host: none fills it for others, and none goes before them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fedmsg_relay import config as global_config
from fedmsg_relay.publishing import diagnosis, drain, quota
from fedmsg_relay.publishing.spool import Spool, encoded

from tests.conftest import Bus
from tests.support.users import NOBODY, SOMEBODY, as_user, needs_root, shared_spool

HOG = 65530
BLOCK = 4096
SIZE = 40 * BLOCK  # of the spool

pytestmark = needs_root
assert diagnosis  # imported where it is needed, by other users in these tests


@pytest.fixture
def shared() -> Iterator[Path]:
    with shared_spool() as path:
        yield path


def content(name: str, size: int = 0) -> tuple[bytes, bytes]:
    body = {"topic": "t", "timestamp": 1, "msg_id": name, "msg": {"text": "x" * size}}
    return b"t", json.dumps(body).encode()


def put(spool: Path, uid: int, name: str, size: int = 0) -> None:
    """As any user may do it by hand, by whatever name."""
    path = spool / name
    path.write_bytes(encoded(*content(name, size)))
    path.chmod(0o640)
    os.chown(path, uid, NOBODY)


def written(spool: Path, uid: int, count: int = 1) -> str:
    """What becomes of messages that a user spools, the last of them."""

    def write() -> str:
        own = Spool(str(spool), SIZE)
        return [own.write(*content(f"{uid}-{n}")) for n in range(count)][-1]

    return as_user(uid, write)


def drain_in_vain(bus: Bus) -> None:
    """In a process of ours, for the spool's owner may have no way to the modules of Python."""
    config = global_config.load(str(bus.config_directory))
    assert "no relay answered" in as_user(NOBODY, lambda: drain.drain(config, 0.2))


@pytest.fixture
def limited(bus: Bus, shared: Path) -> Path:
    bus.with_journal(publisher_spool=str(shared))
    bus.configure("z", publisher_spool_max_bytes=SIZE)
    return shared


def test_who_fills_it_is_refused_and_others_are_not(bus: Bus, limited: Path) -> None:
    written(limited, HOG, 60)
    drain_in_vain(bus)
    assert "is full for this user's messages" in written(limited, HOG)
    for uid in (SOMEBODY, 65531, 65532):
        assert written(limited, uid).startswith(str(limited)), uid
    # And so it stays when nothing is delivered for long.
    drain_in_vain(bus)
    assert "is full" in written(limited, HOG)
    assert written(limited, SOMEBODY).startswith(str(limited))
    bus.relay()
    assert bus.tool("logger", "--drain").returncode == 0
    assert len(bus.journaled()) == 63  # a msg_id twice
    assert written(limited, HOG).startswith(str(limited))


def test_what_several_fill_has_room_for_one_more(bus: Bus, limited: Path) -> None:
    hogs = (HOG, 65529, 65528)
    for hog in hogs:
        written(limited, hog, 100)
    drain_in_vain(bus)
    for hog in hogs:
        assert "is full" in written(limited, hog)
    assert written(limited, SOMEBODY).startswith(str(limited))


def test_root_is_not_shut_out(bus: Bus, limited: Path) -> None:
    written(limited, HOG, 100)
    assert written(limited, 0).startswith(str(limited))


@pytest.mark.parametrize("kind", ["file", "directory", "not empty"])
def test_no_name_that_a_user_takes_switches_it_off(bus: Bus, limited: Path, kind: str) -> None:
    def take() -> None:
        for name in (".full", quota.MARKS, "failed", ".tmp-x"):
            path = limited / name
            if kind == "file":
                path.touch()
                continue
            path.mkdir(mode=0o777)
            if kind == "not empty":
                for uid in (HOG, SOMEBODY, "x"):
                    (path / str(uid)).touch()

    assert as_user(HOG, take) == "None"
    written(limited, HOG, 60)
    drain_in_vain(bus)
    assert "is full" in written(limited, HOG)
    assert written(limited, SOMEBODY).startswith(str(limited))
    bus.relay()
    assert bus.tool("logger", "--drain").returncode == 0
    assert len(bus.journaled()) == 61


def test_a_users_own_mark_is_none(bus: Bus, limited: Path) -> None:
    """Neither for others nor against the limit."""

    def forge() -> None:
        (limited / quota.MARKS).mkdir(mode=0o777)
        (limited / quota.MARKS / str(SOMEBODY)).touch()

    assert as_user(HOG, forge) == "None"
    assert written(limited, SOMEBODY).startswith(str(limited))


def test_users_take_turns_whatever_their_files_are_called(bus: Bus, shared: Path) -> None:
    bus.with_journal(publisher_spool=str(shared))
    for number in range(300):
        put(shared, HOG, f"0000-{number:04d}", 2000)
    put(shared, SOMEBODY, f"{99:020d}-a")
    put(shared, NOBODY, "zzz")
    bus.relay()
    assert bus.tool("logger", "--drain").returncode == 0
    order = bus.journaled()
    assert len(order) == 302
    # A turn is 64 KiB.
    assert order.index(f"{99:020d}-a") < 40
    assert order.index("zzz") < 40


def test_ones_own_go_in_the_order_in_which_they_came(bus: Bus, shared: Path) -> None:
    bus.with_journal(publisher_spool=str(shared))
    names = ["b", "c", "a", "00000000000000000000-0", "9"]
    before = 0
    for name in names:
        # The kernel's time has ticks of some milliseconds.
        put(shared, SOMEBODY, name)
        while (shared / name).stat().st_ctime_ns <= before:
            os.chown(shared / name, SOMEBODY, NOBODY)
        before = (shared / name).stat().st_ctime_ns
        os.utime(shared / name, (1, 1))
    bus.relay()
    assert bus.tool("logger", "--drain").returncode == 0
    order = bus.journaled()
    # One that is called as ours are may gain a minute by that.
    assert [name for name in order if "-" not in name] == ["b", "c", "a", "9"]
    assert set(order) == set(names)
