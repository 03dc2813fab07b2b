"""files/scripts/git-post-receive: real repositories, real pushes, the hook run by git itself.

What the hook hands to `fedmsg_relay.publish_all` is recorded by a module of that name.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import at_most

HOOK = Path(__file__).parents[2] / "files/scripts/git-post-receive"

RECORDER = """
import json, os, time

from collections import namedtuple

Outcome = namedtuple("Outcome", "kind why", defaults=("",))

def publish_all(msgs, topic, modname):
    for msg in msgs:
        if len(msg["commit"]["message"]) > 1000:
            yield Outcome("refused", "relays take no more than this")
            continue
        with open(os.environ["RECORDED"], "a") as recorded:
            print(json.dumps([f"{modname}.{topic}", os.getcwd(), msg]), file=recorded)
        if int(os.environ.get("RECORDER_FAILS", 0)) == sum(1 for _ in open(os.environ["RECORDED"])):
            yield Outcome("failed", "no relay answers on tcp://busgateway01:2003")
            continue
        if "RECORDER_HANGS" in os.environ:
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass
        yield Outcome(os.environ.get("RECORDER_SAYS", "acked"))
"""


class Push:
    """A bare repository with the hook, a clone to push from, and what the hook published."""

    def __init__(self, directory: Path, *, init: tuple[str, ...] = ("--bare",)) -> None:
        self.remote = directory / "rpms/guake.git"
        self.clone = directory / "clone"
        self.recorded = directory / "recorded"
        library = directory / "library"
        (library / "fedmsg_relay").mkdir(parents=True)
        (library / "fedmsg_relay/__init__.py").write_text(RECORDER)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "LOGNAME": "jane",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Jane Döe",
            "GIT_AUTHOR_EMAIL": "jane@example.org",
            "GIT_COMMITTER_NAME": "Jane Döe",
            "GIT_COMMITTER_EMAIL": "jane@example.org",
            "GL_USER": "pusher",
            "PYTHONPATH": str(library),
            "RECORDED": str(self.recorded),
        }
        self.clone.mkdir()
        formats = [option for option in init if option.startswith("--object-format")]
        self.git("init", "-q", "-b", "main", *init, str(self.remote))
        self.git("init", "-q", "-b", "main", *formats, str(self.clone))
        self.git("remote", "add", "origin", str(self.remote))
        git_directory = self.remote if "--bare" in init else self.remote / ".git"
        self.hook = git_directory / "hooks/post-receive"
        self.hook.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HOOK}"\n')
        self.hook.chmod(0o755)

    def git(self, *arguments: str, given: str | bytes | None = None, **environment: str) -> str:
        encoded = given.encode() if isinstance(given, str) else given
        done = subprocess.run(
            ("git", *arguments),
            cwd=self.clone,
            env={**self.environment, **environment},
            input=encoded,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        self.said = done.stderr.decode(errors="replace")
        return done.stdout.decode(errors="replace").strip()

    def commit(self, message: str, files: dict[str, str] | None = None, **environment: str) -> str:
        for name, content in (files or {message: f"{message}\n"}).items():
            (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
            (self.clone / name).write_text(content)
            self.git("add", name)
        self.git("commit", "-q", "-m", message, **environment)
        return self.git("rev-parse", "HEAD")

    def push(self, *what: str, **environment: str) -> list[dict[str, Any]]:
        """Push, and return the commits that were published by it."""
        before = len(self.published())
        self.git("push", "origin", *(what or ("main",)), **environment)
        return self.published()[before:]

    def published(self) -> list[dict[str, Any]]:
        if not self.recorded.exists():
            return []
        commits = []
        for line in self.recorded.read_text().splitlines():
            topic, _, msg = json.loads(line)
            assert topic == "git.receive"
            assert list(msg) == ["commit"]
            commits.append(msg["commit"])
        return commits

    @property
    def kept(self) -> str:
        """What the hook says last if there is a rest."""
        command = f"{HOOK} --publish-rest {self.remote}"
        return f"kept for the next push, or for this command: {command}"

    def hook_lines(self) -> list[str]:
        return re.findall(r"remote: fedmsg: (.*?) *$", self.said, re.MULTILINE)


@pytest.fixture
def repo(tmp_path: Path) -> Push:
    return Push(tmp_path)


def summaries(commits: list[dict[str, Any]]) -> list[str]:
    return [commit["summary"] for commit in commits]


# What is announced


def test_one_message_a_commit_with_every_key_of_the_original_hook(repo: Push) -> None:
    rev = repo.commit(
        "Update to 3.10\n\nFixes a crash.", {"guake.spec": "a\nb\n", "tests/plan": "c\n"}
    )
    [commit] = repo.push()
    assert commit == {
        "name": "Jane Döe",
        "email": "jane@example.org",
        "username": "jane",
        "agent": "pusher",
        "summary": "Update to 3.10",
        "message": "Update to 3.10\n\nFixes a crash.\n",
        "rev": rev,
        "path": str(repo.remote),
        "repo": "guake",
        "namespace": "rpms",
        "branch": "main",
        "seen": False,
        "stats": {
            "files": {
                "guake.spec": {"additions": 2, "deletions": 0, "lines": 2},
                "tests/plan": {"additions": 1, "deletions": 0, "lines": 1},
            },
            "total": {"additions": 3, "deletions": 0, "lines": 3, "files": 2},
        },
    }
    assert repo.hook_lines() == ["published 1 commit"]


def test_first_push_announces_the_whole_history_oldest_first(repo: Push) -> None:
    for name in ("one", "two", "three"):
        repo.commit(name)
    assert summaries(repo.push()) == ["one", "two", "three"]


def test_parents_come_before_children_whatever_the_clocks_said(repo: Push) -> None:
    repo.commit("one", GIT_COMMITTER_DATE="2030-01-01T00:00:00Z")
    repo.commit("two", GIT_COMMITTER_DATE="2001-01-01T00:00:00Z")
    repo.commit("three", GIT_COMMITTER_DATE="2015-01-01T00:00:00Z")
    repo.git("checkout", "-q", "-b", "topic")
    repo.commit("earlier than its parent", GIT_COMMITTER_DATE="2003-01-01T00:00:00Z")
    repo.git("checkout", "-q", "main")
    repo.commit("on main", GIT_COMMITTER_DATE="2035-01-01T00:00:00Z")
    repo.git("merge", "-q", "-m", "the merge", "topic")
    arrived = summaries(repo.push())
    assert arrived[:3] == ["one", "two", "three"]
    assert sorted(arrived[3:5]) == ["earlier than its parent", "on main"]
    assert arrived[5] == "the merge"


def test_later_push_announces_only_what_is_new(repo: Push) -> None:
    repo.commit("one")
    repo.push()
    repo.commit("two")
    repo.commit("three")
    assert summaries(repo.push()) == ["two", "three"]


def test_new_branch_announces_only_commits_that_no_branch_had(repo: Push) -> None:
    repo.commit("one")
    repo.push()
    repo.git("checkout", "-q", "-b", "f41")
    repo.commit("two")
    commits = repo.push("f41")
    assert [(commit["summary"], commit["branch"]) for commit in commits] == [("two", "f41")]


def test_new_branch_without_commits_of_its_own_announces_nothing(repo: Push) -> None:
    repo.commit("one")
    repo.push()
    repo.git("checkout", "-q", "-b", "f41")
    assert repo.push("f41") == []
    assert repo.hook_lines() == []


def test_two_new_branches_with_the_same_commit_do_not_hide_it_from_each_other(repo: Push) -> None:
    repo.commit("one")
    repo.push()
    repo.git("checkout", "-q", "-b", "f40")
    repo.commit("two")
    repo.git("branch", "f41")
    repo.git("branch", "releases/next")
    commits = repo.push("f40", "f41", "releases/next")
    assert [(c["summary"], c["branch"], c["seen"]) for c in commits] == [
        ("two", "f40", False),
        ("two", "f41", True),
        ("two", "releases/next", True),
    ]


def test_update_and_new_branch_in_one_push(repo: Push) -> None:
    repo.commit("one")
    repo.push()
    repo.commit("two")
    repo.git("checkout", "-q", "-b", "f41")
    repo.commit("three")
    commits = repo.push("main", "f41")
    assert {(c["summary"], c["branch"]) for c in commits} == {
        ("two", "main"),
        ("two", "f41"),
        ("three", "f41"),
    }
    assert [c["seen"] for c in commits if c["summary"] == "two"] == [False, True]


def test_deleted_branch_announces_nothing_and_stops_nothing(repo: Push) -> None:
    repo.commit("one")
    repo.git("branch", "f41")
    repo.push("main", "f41")
    assert repo.push("--delete", "f41") == []
    repo.commit("two")
    repo.git("branch", "f42", "main~")
    repo.push("f42")
    assert summaries(repo.push(":f42", "main")) == ["two"]


@pytest.mark.parametrize("kind", ["lightweight", "annotated"])
def test_tags_announce_nothing(repo: Push, kind: str) -> None:
    repo.commit("one")
    repo.push()
    repo.commit("two")
    repo.git("tag", *(("-a", "-m", "message") if kind == "annotated" else ()), "v1")
    assert repo.push("v1") == []
    assert summaries(repo.push("main")) == ["two"]


def test_merge_announces_both_sides_and_counts_the_merge_against_its_first_parent(
    repo: Push,
) -> None:
    repo.commit("one")
    repo.push()
    repo.git("checkout", "-q", "-b", "topic")
    repo.commit("on topic", {"topic": "a\nb\nc\n"})
    repo.git("checkout", "-q", "main")
    repo.commit("on main")
    repo.git("merge", "-q", "-m", "the merge", "topic")
    commits = repo.push()
    assert sorted(summaries(commits[:2])) == ["on main", "on topic"]
    assert commits[2]["summary"] == "the merge"
    assert commits[2]["stats"]["files"] == {"topic": {"additions": 3, "deletions": 0, "lines": 3}}


def test_forced_push_announces_what_came_and_not_what_went(repo: Push) -> None:
    repo.commit("one")
    repo.commit("two")
    repo.push()
    repo.git("reset", "-q", "--hard", "HEAD~")
    repo.commit("other two")
    assert summaries(repo.push("+main")) == ["other two"]
    repo.git("reset", "-q", "--hard", "HEAD~")
    assert repo.push("+main") == []


def test_many_commits_arrive_all_and_in_order(repo: Push) -> None:
    stream = "".join(
        f"commit refs/heads/main\ncommitter J <j@example.org> {1700000000 + i} +0000\n"
        f"data <<END\ncommit {i}\nEND\nM 100644 inline f{i % 7}\ndata <<END\n{i}\nEND\n\n"
        for i in range(1000)
    )
    repo.git("fast-import", "--quiet", given=stream)
    commits = repo.push()
    assert summaries(commits) == [f"commit {i}" for i in range(1000)]
    assert all(commit["stats"]["total"]["files"] == 1 for commit in commits)
    assert repo.hook_lines() == ["published 1000 commits"]


# What is said about a commit


def test_binary_file_counts_as_a_file_without_lines(repo: Push) -> None:
    repo.commit("one", {"logo.png": "\0\1\2"})
    [commit] = repo.push()
    assert commit["stats"]["files"] == {"logo.png": {"additions": 0, "deletions": 0, "lines": 0}}
    assert commit["stats"]["total"]["files"] == 1


@pytest.mark.parametrize("renames", ["unset", "copies"])
def test_rename_is_a_file_gone_and_a_file_come(repo: Push, renames: str) -> None:
    repo.commit("one", {"old": "a\nb\n"})
    repo.push()
    if renames == "copies":
        repo.git("--git-dir", str(repo.remote), "config", "diff.renames", "copies")
    repo.git("mv", "old", "new")
    repo.git("commit", "-q", "-m", "renamed")
    [commit] = repo.push()
    assert commit["stats"]["files"] == {
        "old": {"additions": 0, "deletions": 2, "lines": 2},
        "new": {"additions": 2, "deletions": 0, "lines": 2},
    }


def test_commit_without_changes_has_empty_stats(repo: Push) -> None:
    repo.commit("one")
    repo.git("commit", "-q", "--allow-empty", "-m", "empty")
    repo.commit("three")
    empty = repo.push()[1]
    assert empty["stats"] == {
        "files": {},
        "total": {"additions": 0, "deletions": 0, "lines": 0, "files": 0},
    }


def test_paths_with_blanks_quotes_tabs_and_bytes_that_are_not_utf8(repo: Push) -> None:
    names = [b"two words", b'"quoted"', b"tab\tnew\nline", b"caf\xc3\xa9", b"caf\xe9", b"caf\xe8"]
    for name in names:
        (repo.clone / os.fsdecode(name)).write_text("x\n")
    repo.git("add", ".")
    repo.git("commit", "-q", "-m", "names")
    [commit] = repo.push()
    assert set(commit["stats"]["files"]) == {
        "two words",
        '"quoted"',
        "tab\tnew\nline",
        "café",
        "caf\\xe9",
        "caf\\xe8",
    }


@pytest.mark.parametrize(
    ("header", "name", "expected"),
    [
        ("encoding ISO-8859-1\n", b"Ren\xe9", "René"),
        ("", b"Ren\xe9", "Ren\N{REPLACEMENT CHARACTER}"),
        ("encoding no-such-thing\n", b"Ren\xe9", "Ren\N{REPLACEMENT CHARACTER}"),
        ("", b"", ""),
        ("", b"A (B) 'C'", "A (B) 'C'"),
    ],
)
def test_author_in_any_encoding(repo: Push, header: str, name: bytes, expected: str) -> None:
    tree = repo.git("mktree", given="")
    person = name + b" <r@example.org> 1700000000 +0000\n"
    content = b"tree %s\nauthor %scommitter %s%s\nby %s\n" % (
        tree.encode(),
        person,
        person,
        header.encode(),
        name,
    )
    rev = repo.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", given=content)
    repo.git("update-ref", "refs/heads/main", rev)
    [commit] = repo.push()
    assert (commit["name"], commit["email"]) == (expected, "r@example.org")
    assert commit["summary"] == f"by {expected}"


def test_message_that_looks_like_a_header(repo: Push) -> None:
    repo.git(
        "commit", "-q", "--allow-empty", "-F", "-", given="one\n\nauthor Eve <eve@example.org>\n"
    )
    [commit] = repo.push()
    assert commit["name"] == "Jane Döe"
    assert commit["message"] == "one\n\nauthor Eve <eve@example.org>\n"


def test_very_large_commit_keeps_its_totals_without_the_list_of_files(repo: Push) -> None:
    files = "".join(f"M 100644 inline f{i}\ndata <<END\nx\nEND\n" for i in range(10_001))
    repo.git(
        "fast-import",
        "--quiet",
        given="commit refs/heads/main\ncommitter J <j@example.org> 1700000000 +0000\n"
        f"data <<END\nimport\nEND\n{files}\n",
    )
    [commit] = repo.push()
    assert commit["stats"]["files"] == {}
    assert commit["stats"]["total"]["files"] == 10_001
    assert commit["stats"]["total"]["additions"] == 10_001


def test_repository_of_the_other_hash(tmp_path: Path) -> None:
    repo = Push(tmp_path, init=("--bare", "--object-format=sha256"))
    repo.commit("one")
    repo.push()
    repo.git("branch", "f41")
    repo.commit("two")
    [commit] = repo.push("main", "f41")
    assert len(commit["rev"]) == 64
    repo.push("--delete", "f41")
    assert len(repo.published()) == 2


def test_repository_with_a_work_tree(tmp_path: Path) -> None:
    repo = Push(tmp_path, init=())
    repo.git("--git-dir", f"{repo.remote}/.git", "config", "receive.denyCurrentBranch", "ignore")
    repo.commit("one")
    [commit] = repo.push()
    assert (commit["path"], commit["repo"]) == (f"{repo.remote}/.git", "guake")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GL_USER": "", "REMOTE_USER": "web"}, "web"),
        ({"GL_USER": "lit", "REMOTE_USER": ""}, "lit"),
    ],
)
def test_agent_is_who_pushed(repo: Push, environment: dict[str, str], expected: str) -> None:
    repo.commit("one")
    [commit] = repo.push(**environment)
    assert (commit["agent"], commit["username"]) == (expected, "jane")


# What must never happen to a push


def test_relay_down_costs_one_attempt_and_names_what_is_missing(repo: Push) -> None:
    revs = [repo.commit(name) for name in ("one", "two", "three")]
    repo.git("branch", "f41", "main~")
    attempted = repo.push("main", "f41", RECORDER_FAILS="1")
    assert len(attempted) == 1
    reason = "no relay answers on tcp://busgateway01:2003"
    assert repo.hook_lines() == [
        f"NOT PUBLISHED: 3 commits of main ({revs[0][:12]} to {revs[2][:12]}): {reason}",
        f"NOT PUBLISHED: 2 commits of f41 ({revs[0][:12]} to {revs[1][:12]}): {reason}",
        repo.kept,
    ]
    assert repo.git("ls-remote", "origin", "main").startswith(revs[2])


def test_relay_that_goes_away_in_between(repo: Push) -> None:
    revs = [repo.commit(name) for name in ("one", "two", "three", "four")]
    assert len(repo.push(RECORDER_FAILS="3")) == 3
    published, line, kept = repo.hook_lines()
    assert (published, kept) == ("published 2 commits", repo.kept)
    which = f"({revs[2][:12]} to {revs[3][:12]})"
    assert line.startswith(f"NOT PUBLISHED: 2 commits of main {which}: no relay answers")


def test_commit_that_is_too_large_does_not_stop_the_others(repo: Push) -> None:
    repo.commit("one")
    rev = repo.commit("large\n\n" + "x" * 2000, {"two": "two\n"})
    repo.commit("three")
    assert summaries(repo.push()) == ["one", "three"]
    assert repo.hook_lines() == [
        f"NOT PUBLISHED: 1 commit of main ({rev[:12]}): relays take no more than this",
        "published 2 commits",
    ]


def test_what_is_spooled_is_not_said_to_be_published(repo: Push) -> None:
    for name in ("one", "two"):
        repo.commit(name)
    repo.push(RECORDER_SAYS="spooled")
    assert repo.hook_lines() == ["spooled 2 commits: published when a relay answers"]


def test_hanging_publish_is_ended(repo: Push) -> None:
    repo.git("--git-dir", str(repo.remote), "config", "hooks.fedmsgTimeout", "1")
    rev = repo.commit("one")
    started = time.monotonic()
    repo.push(RECORDER_HANGS="yes")
    at_most(5, since=started)
    line, kept = repo.hook_lines()
    assert kept == repo.kept
    assert line.startswith(f"NOT PUBLISHED: 1 commit of main ({rev[:12]}): out of time")


def test_hanging_git_is_ended(repo: Push, tmp_path: Path) -> None:
    repo.git("--git-dir", str(repo.remote), "config", "hooks.fedmsgTimeout", "1")
    programs = tmp_path / "programs"
    programs.mkdir()
    real_git = subprocess.run(["which", "git"], capture_output=True, text=True).stdout.strip()
    (programs / "git").write_text(
        f'#!/bin/sh\n[ "$1" = cat-file ] && exec sleep 60\nexec "{real_git}" "$@"\n'
    )
    (programs / "git").chmod(0o755)
    repo.hook.write_text(f'#!/bin/sh\nPATH="{programs}:$PATH" exec "{sys.executable}" "{HOOK}"\n')
    rev = repo.commit("one")
    started = time.monotonic()
    repo.push()
    at_most(5, since=started)
    assert repo.hook_lines() == [
        f"NOT PUBLISHED: 1 commit of main ({rev[:12]}): out of time in git cat-file",
        repo.kept,
    ]


def test_host_without_the_library(repo: Push) -> None:
    rev = repo.commit("one")
    repo.push(PYTHONPATH="/nonexistent")
    line, kept = repo.hook_lines()
    assert line.startswith(f"NOT PUBLISHED: 1 commit of main ({rev[:12]}): cannot import")
    assert kept == repo.kept
    assert "Traceback" not in repo.said


def test_pusher_that_hung_up_does_not_stop_the_messages(repo: Push) -> None:
    repo.hook.rename(repo.hook.with_suffix(".off"))
    rev = repo.commit("one")
    repo.git("push", "origin", "main")
    reader, writer = os.pipe()
    os.close(reader)  # nobody reads standard error any more
    done = subprocess.run(
        [sys.executable, HOOK],
        input=f"{'0' * 40} {rev} refs/heads/main\n".encode(),
        cwd=repo.remote,
        env={**repo.environment, "GIT_DIR": "."},
        stderr=writer,
        timeout=30,
    )
    os.close(writer)
    assert done.returncode == 0
    assert summaries(repo.published()) == ["one"]


def test_nothing_in_the_repository_is_loaded_as_config(repo: Push) -> None:
    repo.commit("one")
    repo.push()
    [line] = repo.recorded.read_text().splitlines()
    # The config loader executes ./fedmsg.d/*.py: the hook must not be in the repository by then.
    assert json.loads(line)[1] == "/"


# What is left of a push


def publish_rest(repo: Push, **environment: str) -> tuple[int, str]:
    """Run the command; its exit status, and what it says."""
    done = subprocess.run(
        [sys.executable, HOOK, "--publish-rest", repo.remote],
        env={**repo.environment, "GL_USER": "root", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def kept_files(repo: Push) -> list[Path]:
    directory = repo.remote / "fedmsg-rest"
    return sorted(directory.iterdir()) if directory.exists() else []


def test_the_command_publishes_the_rest_as_the_push_would_have(repo: Push) -> None:
    for name in ("one", "two", "three"):
        repo.commit(name)
    [attempted] = repo.push(RECORDER_FAILS="1")
    assert publish_rest(repo) == (0, "fedmsg: published 3 commits\n")
    rest = repo.published()[1:]
    assert summaries(rest) == ["one", "two", "three"]
    assert rest[0] == attempted and rest[0]["agent"] == "pusher"
    assert kept_files(repo) == []
    assert publish_rest(repo)[0] == 0
    assert len(repo.published()) == 4


def test_what_is_left_again_is_kept_again(repo: Push) -> None:
    for name in ("one", "two", "three"):
        repo.commit(name)
    repo.push(RECORDER_FAILS="1")
    status, said = publish_rest(repo, RECORDER_FAILS="3")  # lines of all that was recorded
    assert status == 75
    assert "NOT PUBLISHED: 2 commits of main" in said and "--publish-rest" in said
    assert publish_rest(repo) == (0, "fedmsg: published 2 commits\n")
    assert summaries(repo.published()) == ["one", "one", "two", "two", "three"]


def test_the_next_push_publishes_the_rest_first(repo: Push) -> None:
    for name in ("one", "two"):
        repo.commit(name)
    repo.push(RECORDER_FAILS="1")
    repo.commit("three")
    assert summaries(repo.push(GL_USER="another")) == ["one", "two", "three"]
    assert [commit["agent"] for commit in repo.published()[1:]] == ["pusher", "pusher", "another"]
    assert repo.hook_lines() == ["published 3 commits"]
    assert kept_files(repo) == []


def test_pushes_without_a_relay_are_kept_in_their_order(repo: Push) -> None:
    for name in ("one", "two", "three"):
        repo.commit(name)
        repo.push(PYTHONPATH="/nonexistent")
    assert len(kept_files(repo)) == 3
    assert publish_rest(repo) == (0, "fedmsg: published 3 commits\n")
    assert summaries(repo.published()) == ["one", "two", "three"]


def test_a_push_whose_commits_git_could_not_list_in_time_is_kept(
    repo: Push, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    real_git = subprocess.run(["which", "git"], capture_output=True, text=True).stdout.strip()
    fails = '[ "$1" = rev-list ] && echo it fails >&2 && exit 128'
    (programs / "git").write_text(f'#!/bin/sh\n{fails}\nexec "{real_git}" "$@"\n')
    (programs / "git").chmod(0o755)
    repo.hook.write_text(f'#!/bin/sh\nPATH="{programs}:$PATH" exec "{sys.executable}" "{HOOK}"\n')
    repo.commit("one")
    repo.commit("two")
    assert repo.push() == []
    assert repo.hook_lines() == ["NOT PUBLISHED: git rev-list: it fails", repo.kept]
    assert publish_rest(repo) == (0, "fedmsg: published 2 commits\n")
    assert summaries(repo.published()) == ["one", "two"]


def test_commits_that_git_has_removed_meanwhile_hold_up_no_others(repo: Push) -> None:
    repo.commit("one")
    repo.push()
    gone = repo.commit("gone")
    repo.push(PYTHONPATH="/nonexistent")
    repo.git("reset", "-q", "--hard", "HEAD~")
    repo.commit("two")
    repo.push("+main", PYTHONPATH="/nonexistent")
    remote = ("--git-dir", str(repo.remote))
    repo.git(*remote, "reflog", "expire", "--expire=now", "--all")
    repo.git(*remote, "gc", "-q", "--prune=now")
    status, said = publish_rest(repo)
    assert status == 0
    assert f"NOT PUBLISHED: 1 commit of main ({gone[:12]}): not in the repository any more" in said
    assert summaries(repo.published()) == ["one", "two"]


@pytest.mark.parametrize("content", ["", "{", '["a"]\n', '["a", "b"]\n["--all", "main", false]\n'])
def test_a_damaged_file_is_named(repo: Push, content: str) -> None:
    repo.commit("one")
    repo.push(PYTHONPATH="/nonexistent")
    [file] = kept_files(repo)
    file.write_text(content)
    status, said = publish_rest(repo)
    assert status == 75
    assert f"{file} is damaged, move it away" in said
    assert repo.published() == []


def test_two_do_not_publish_the_rest_at_a_time(repo: Push) -> None:
    repo.commit("one")
    repo.push(PYTHONPATH="/nonexistent")
    descriptor = os.open(repo.remote / "fedmsg-rest", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert publish_rest(repo)[0] == 75
    repo.commit("two")
    assert repo.push() == []
    assert "another process publishes" in repo.hook_lines()[0]
    os.close(descriptor)
    assert publish_rest(repo)[0] == 0
    assert summaries(repo.published()) == ["one", "two"]


def test_who_may_push_may_publish_the_rest(repo: Push) -> None:
    repo.remote.chmod(0o2770)
    repo.commit("one")
    repo.push(PYTHONPATH="/nonexistent")
    [file] = kept_files(repo)
    assert file.stat().st_mode & 0o777 == 0o660
    assert file.parent.stat().st_mode & 0o7777 == 0o2770


@pytest.mark.parametrize("arguments", [["--publish-rest"], ["--rest"], ["--publish-rest", "/etc"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert subprocess.run([sys.executable, HOOK, *arguments], timeout=60).returncode == 2
