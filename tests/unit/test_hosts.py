"""molecule/shared: which image a test host is made of, and that bare ones are still deployed to."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "molecule" / "shared"))
import access
import hosts
import images

SCENARIOS = {path.parent.name: path for path in (ROOT / "molecule").glob("*/molecule.yml")}


def platforms(scenario: str) -> list[dict[str, Any]]:
    return yaml.safe_load(SCENARIOS[scenario].read_text())["platforms"]


def test_a_host_is_named_with_its_packages_and_ports() -> None:
    spec = hosts.Spec.parse("relay01=trixie+roles+nftables:4001:4002")
    assert (spec.name, spec.image) == ("relay01", ("trixie", ("nftables", "roles")))
    assert spec.ports == (4001, 4002)
    assert hosts.Spec.parse("app01=bookworm").image == ("bookworm", ())
    for wrong in ("app01", "=trixie", "app01=trixie:ssh", "app01=:22"):
        with pytest.raises(argparse.ArgumentTypeError):
            hosts.Spec.parse(wrong)


def test_hosts_with_the_same_packages_share_an_image() -> None:
    one, other = (hosts.Spec.parse(f"x={text}") for text in ("a+b+c", "a+c+b"))
    assert one.image == other.image


def test_the_packages_are_those_of_the_roles() -> None:
    """Whichever the roles have: Debian's name and Red Hat's, without those of signing."""
    words = images._packages_of_roles()
    named = {word.partition("=")[0] for word in words}
    debian = yaml.safe_load((ROOT / "roles/fedmsg_base/vars/Debian.yml").read_text())
    lists = {name: value for name, value in debian.items() if isinstance(value, list)}
    signing = set(lists.pop("__fedmsg_base_signing_packages"))
    assert named == {name for value in lists.values() for name in value}
    assert not named & signing
    assert "python3-prometheus-client=python3-prometheus_client" in words


def test_another_list_of_packages_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def exists(name: str) -> bool:
        made.append(name)
        return True

    monkeypatch.setattr(images, "_exists", exists)
    monkeypatch.setattr(images, "_packages_of_roles", lambda: ["python3-zmq"])
    first = images.ensure_image("trixie", ("roles",))
    assert images.ensure_image("trixie", ("roles",)) == first
    with_more = images.ensure_image("trixie", ("roles", "nftables"))
    # On top of what others share.
    assert made[-2] == first
    monkeypatch.setattr(images, "_packages_of_roles", lambda: ["python3-zmq", "curl"])
    assert len({first, with_more, images.ensure_image("trixie", ("roles",))}) == 3


def test_both_releases_of_debian_are_deployed_to_bare() -> None:
    """The first deploy installs packages there: at least a relay and another host of each."""
    bare = {
        (platform["suite"], "fedmsg_relay" in platform.get("groups", []))
        for scenario in ("default", "collection", "upgrade", "legacy")
        for platform in platforms(scenario)
        if not platform.get("packages")
    }
    assert bare == {(suite, relay) for suite in ("trixie", "bookworm") for relay in (True, False)}


@pytest.mark.parametrize("scenario", ["default", "truth"])
def test_where_the_first_run_is_what_is_tested_no_host_is_prepared(scenario: str) -> None:
    assert not [platform for platform in platforms(scenario) if platform.get("packages")]


def test_images_are_built_from_files_that_exist() -> None:
    recipe = Path(images.RECIPE)
    assert {"add.sh", "prepare.sh", "packages.sh"} <= {path.name for path in recipe.iterdir()}


# Answers nothing on its first connection, as one that a firewall cuts.
SSH_THAT_HANGS_ONCE = """#!/bin/sh
echo "$*" >>{calls}
[ "$(wc -l <{calls})" -gt 1 ] || exec sleep 600
case $* in *systemctl*) echo running ;; *) echo "10.0.0.2 STREAM app01" ;; esac
"""


def test_a_connection_that_is_cut_during_the_boot_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH_THAT_HANGS_ONCE.format(calls=calls))
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(hosts, "ONE_QUESTION", 3)
    assert not hosts._fault(access.Access(tmp_path / "state"), "app01", ["app01"], 120)
    first, second, third = (line.split(" app01 ", 1)[1] for line in calls.read_text().splitlines())
    assert first == second != third
