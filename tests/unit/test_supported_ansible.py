"""Which versions of ansible-core are supported is said in several places: all say the same."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.conftest import ROOT


def locked(name: str) -> str:
    """Major and minor version of the ansible-core that a lock has."""
    [found] = re.findall(
        r"^ansible-core==(\d+\.\d+)\.", (ROOT / f"requirements/{name}.txt").read_text(), re.M
    )
    return str(found)


OLDEST, NEWEST = locked("ansible-oldest"), locked("test")


def test_the_oldest_that_is_asked_for_is_the_oldest_that_is_tested() -> None:
    runtime = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())
    assert runtime["requires_ansible"] == f">={OLDEST}.0"


@pytest.mark.parametrize(
    "role", ["fedmsg_base", "fedmsg_bridge", "fedmsg_relay", "fedmsg_monitoring"]
)
def test_roles_ask_for_the_same(role: str) -> None:
    meta = yaml.safe_load((ROOT / f"roles/{role}/meta/main.yml").read_text())
    assert meta["galaxy_info"]["min_ansible_version"] == OLDEST


def test_the_readme_says_so() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"You need ansible-core {OLDEST} or later on the control host" in readme
    assert f"The tests deploy with {OLDEST} and with {NEWEST}" in readme


def test_so_does_the_page_about_deploying() -> None:
    assert f"ansible-core {OLDEST} or later" in (ROOT / "docs/deploying.adoc").read_text()


def test_the_page_about_support_says_which_are_tested() -> None:
    page = (ROOT / "docs/support.adoc").read_text().partition("== Control host")[2]
    rows = dict(re.findall(r"^\|(2\.\d+)\n\|.*\n\|(.*)\n", page, re.M))
    assert {version for version, state in rows.items() if re.match("tested", state)} == {
        OLDEST,
        NEWEST,
    }
    assert min(rows, key=lambda version: int(version[2:])) == OLDEST
