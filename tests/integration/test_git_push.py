"""A push of 20,000 commits through files/scripts/git-post-receive, with a relay and without one."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Bus, environment
from tests.integration.test_publishing import spooled
from tests.support import programs
from tests.support.waiting import at_most, patient, wait_for
from tests.unit.test_git_hook import HOOK, Push

COMMITS = 20_000
FEW = 2_000
# Seconds that the hook has, unless hooks.fedmsgTimeout says otherwise.
TIMEOUT = 20


@pytest.fixture
def repo(bus: Bus, spool: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Push:
    """A clone with COMMITS commits, or as many as are asked for, and where it pushes to."""
    made = Push(tmp_path)
    made.environment.update(
        PYTHONPATH=environment()["PYTHONPATH"], FEDMSG_CONFIG=str(bus.config_directory)
    )
    # The machine may be slow. How long it took is looked at, too.
    made.git("--git-dir", str(made.remote), "config", "hooks.fedmsgTimeout", f"{patient(60):.0f}")
    stream = "".join(
        f"commit refs/heads/main\ncommitter J <j@example.org> {1700000000 + i} +0000\n"
        f"data <<END\n{i}\nEND\nM 100644 inline f{i % 7}\ndata <<END\n{i}\nEND\n\n"
        for i in range(getattr(request, "param", COMMITS))
    )
    made.git("fast-import", "--quiet", given=stream)
    return made


def push(repo: Push, what: str = "main") -> list[str]:
    """Push; what the hook said."""
    done = programs.run(
        ["git", "push", "origin", what], cwd=repo.clone, env=repo.environment, timeout=100
    )
    assert done.returncode == 0, done.stderr
    repo.said = done.stderr
    return repo.hook_lines()


def publish_rest(repo: Push) -> tuple[int, str]:
    done = programs.run(
        [sys.executable, HOOK, "--publish-rest", repo.remote], env=repo.environment, timeout=100
    )
    return done.returncode, done.stderr


def journaled(bus: Bus) -> list[int]:
    """The numbers of the commits in the journal, in order."""
    with closing(sqlite3.connect(bus.journal)) as database:
        rows = database.execute("SELECT body FROM message ORDER BY seq")
        return [int(json.loads(body)["msg"]["commit"]["summary"]) for (body,) in rows]


def test_with_a_relay_all_are_acknowledged(bus: Bus, repo: Push) -> None:
    bus.relay()
    started = time.monotonic()
    assert push(repo) == [f"published {COMMITS} commits"]
    at_most(TIMEOUT, started)
    assert journaled(bus) == list(range(COMMITS))


def test_without_a_relay_each_is_spooled_or_kept(bus: Bus, repo: Push, spool: Path) -> None:
    bus.configure("z", timeout=0.5)
    repo.git("--git-dir", str(repo.remote), "config", "hooks.fedmsgTimeout", "3")
    *said, left, kept = push(repo)
    assert left.startswith("NOT PUBLISHED: ") and kept == repo.kept, said
    assert len(spooled(spool)) < COMMITS
    bus.relay()
    assert bus.tool("logger", "--drain").returncode == 0
    status, said_then = publish_rest(repo)
    assert (status, said_then.count("published")) == (0, 1), (said, said_then)
    numbers = journaled(bus)
    assert list(dict.fromkeys(numbers)) == list(range(COMMITS))
    # Of a hook that was ended past its last deadline, what was under way is published again.
    assert len(numbers) - COMMITS <= 1000


@pytest.mark.parametrize("repo", [FEW], indirect=True)
def test_what_the_spool_has_no_room_for_the_next_push_publishes(
    bus: Bus, repo: Push, spool: Path
) -> None:
    bus.configure("z", publisher_spool_max_bytes=500 * 4096, timeout=0.5)
    repo.git("branch", "first", f"main~{FEW - 1000}")
    first, left, kept = push(repo, "first")
    assert first == "spooled 500 commits: published when a relay answers"
    assert left.startswith("NOT PUBLISHED: 500 commits of first") and "is full" in left
    assert kept == repo.kept
    bus.relay()
    assert bus.tool("logger", "--drain").returncode == 0
    assert push(repo) == [f"published {FEW - 500} commits"]
    assert journaled(bus) == list(range(FEW))
    assert publish_rest(repo)[0] == 0
    assert len(journaled(bus)) == FEW


@pytest.mark.parametrize("repo", [FEW], indirect=True)
def test_what_a_hook_that_is_killed_was_about_is_kept(bus: Bus, repo: Push, tmp_path: Path) -> None:
    bus.configure("z", timeout=1000)  # no relay is there, and the hook waits for one
    number = tmp_path / "number"
    repo.hook.write_text(f"#!/bin/sh\necho $$ >'{number}'\nexec '{sys.executable}' '{HOOK}'\n")
    with programs.Child(["git", "push", "origin", "main"], cwd=repo.clone, env=repo.environment):
        wait_for(lambda: list(repo.remote.glob("fedmsg-rest/0*")), what="the push to be kept")
        os.kill(int(number.read_text()), signal.SIGKILL)
    bus.relay()
    assert publish_rest(repo) == (0, f"fedmsg: published {FEW} commits\n")
    assert journaled(bus) == list(range(FEW))
