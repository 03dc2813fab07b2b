"""What the roles decide about a host's firewall and SELinux, with commands in place of theirs.

molecule/firewall runs the same program against real firewalls. SELinux it cannot run.
"""

from __future__ import annotations

import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

PROGRAM = str(ROOT / "files/ansible/firewall.py")
FIREWALL = runpy.run_path(PROGRAM)
WANTED = FIREWALL["Wanted"].of(["10.5.0.0/16", "2001:db8::/32", "10.5.0.0/16"], [4001, 2003])


class Host:
    """A PATH of its own: each command is a script, and leaves a line of what it was told to do."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.calls = path / "calls"
        monkeypatch.setenv("PATH", str(path))
        self._patch = monkeypatch

    def command(self, name: str, script: str = "") -> None:
        program = self.path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.calls}\n{script}\n')
        program.chmod(0o755)

    def run(self, **request: Any) -> dict[str, Any]:
        asked = {"networks": ["10.5.0.0/16"], "ports": [2003], "label": "", "check": False}
        self._patch.setattr(sys, "stdin", io.StringIO(json.dumps({**asked, **request})))
        output = io.StringIO()
        self._patch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(PROGRAM, run_name="__main__")
        assert ended.value.code == 0
        answer: dict[str, Any] = json.loads(output.getvalue())
        return answer

    def changing(self, *words: str) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line for line in lines if any(word in line for word in words)]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def chain(name: str = "input", table: str = "filter", **more: Any) -> dict[str, Any]:
    made = {"family": "inet", "table": table, "name": name, "type": "filter", "hook": "input",
            "policy": "accept", **more}  # fmt: skip
    return {"chain": made}


def rule(*kinds: str, handle: int = 1, table: str = "filter", **more: Any) -> dict[str, Any]:
    made = {"family": "inet", "table": table, "chain": "input", "handle": handle,
            "expr": [{kind: None} for kind in kinds], **more}  # fmt: skip
    return {"rule": made}


class TestWhichFirewall:
    def test_neither_is_said(self, host: Host) -> None:
        answer = host.run()
        assert (answer["firewall"], answer["changes"]) == ("none", [])
        assert "no firewall" in answer["said"][0]

    def test_nothing_is_said_of_it_where_everybody_may_connect(self, host: Host) -> None:
        assert host.run(networks=[])["said"] == [
            "no networks are named: the firewall is left alone"
        ]

    def test_nftables_that_is_installed_and_not_used_is_none(self, host: Host) -> None:
        host.command("nft", "echo '{\"nftables\": []}'")
        host.command("systemctl", "exit 3")
        assert host.run()["firewall"] == "none"

    def test_firewalld_comes_before_nftables_which_it_uses(self, host: Host) -> None:
        host.command("firewall-cmd")
        host.command("nft", "echo '{\"nftables\": []}'")
        host.command("systemctl")
        assert host.run(check=True)["firewall"] == "firewalld"

    def test_firewalld_that_does_not_run_is_none(self, host: Host) -> None:
        host.command("firewall-cmd", "exit 252")
        assert host.run()["firewall"] == "none"

    def test_firewalld_that_cannot_be_asked_is_a_failure(
        self, host: Host, capsys: pytest.CaptureFixture[str]
    ) -> None:
        host.command("firewall-cmd", "echo ALAS >&2; exit 1")
        with pytest.raises(AssertionError):  # which is for exit status 0
            host.run()
        assert "firewall-cmd --state: ALAS" in capsys.readouterr().err

    def test_what_lands_on_the_host_is_no_module_that_hides_firewallds(self) -> None:
        assert not Path(FIREWALL["PROGRAM"]).stem.isidentifier()


class TestNftables:
    script = staticmethod(FIREWALL["nftables_script"])

    def test_a_chain_by_whose_policy_all_is_dropped_is_opened_at_its_end(self) -> None:
        lines = self.script([chain(policy="drop"), rule("accept")], WANTED).splitlines()
        opened = [line for line in lines if " inet filter input " in line]
        assert len(opened) == 2
        assert all(line.startswith("add rule inet filter input ip") for line in opened)
        assert "ip saddr { 10.5.0.0/16 } tcp dport { 2003, 4001 } accept" in opened[0]
        assert "ip6 saddr { 2001:db8::/32 }" in opened[1]

    @pytest.mark.parametrize("last", [("drop",), ("counter", "reject"), ("log", "drop")])
    def test_a_chain_whose_last_rule_drops_all_is_opened_before_it(
        self, last: tuple[str, ...]
    ) -> None:
        lines = self.script([chain(), rule("accept"), rule(*last, handle=9)], WANTED)
        assert lines.count("insert rule inet filter input handle 9 ip") == 2

    @pytest.mark.parametrize("last", [("match", "drop"), ("accept",), ("jump",), ("limit", "drop")])
    def test_a_chain_that_drops_some_things_is_left_alone(self, last: tuple[str, ...]) -> None:
        assert " inet filter input" not in self.script([chain(), rule(*last)], WANTED)

    @pytest.mark.parametrize(
        "other",
        [
            chain(hook="forward", policy="drop"),
            chain(type="nat", policy="drop"),
            chain("INPUT", policy="drop"),
            chain(table="firewalld", policy="drop"),
            {"chain": {"family": "inet", "table": "filter", "name": "input"}},
        ],
    )
    def test_chains_that_are_not_ours_to_open(self, other: dict[str, Any]) -> None:
        found = self.script([other], WANTED)
        assert "filter input ip" not in found.replace("inet fedmsg_relay input", "")
        assert "firewalld" not in found

    def test_a_chain_of_one_version_gets_networks_of_that_version(self) -> None:
        found = self.script([chain(policy="drop", family="ip6")], WANTED)
        assert "add rule ip6 filter input ip6 saddr { 2001:db8::/32 }" in found
        assert "add rule ip6 filter input ip saddr" not in found

    def test_rules_of_before_are_removed_and_only_ours(self) -> None:
        found = [
            chain(policy="drop"),
            rule("accept", handle=5, comment="fedmsg-relay 000000000000"),
            rule("accept", handle=6, comment="fedmsg-relays are great"),
        ]
        lines = self.script(found, FIREWALL["NOTHING"]).splitlines()
        assert lines == [
            "add table inet fedmsg_relay",
            "delete table inet fedmsg_relay",
            "delete rule inet filter input handle 5",
        ]

    def test_all_others_are_dropped_in_a_table_of_our_own(self) -> None:
        lines = self.script([], WANTED).splitlines()
        ours = [line for line in lines if line.startswith("add rule inet fedmsg_relay input ")]
        assert 'iifname "lo" accept' in ours[0]
        assert "tcp dport { 2003, 4001 } counter drop" in ours[-1]

    def test_another_network_is_another_comment(self) -> None:
        other = FIREWALL["Wanted"].of(["10.6.0.0/16"], [2003])
        assert FIREWALL["comment"](WANTED) != FIREWALL["comment"](other)


class TestFirewalld:
    def test_rules_are_for_each_network_and_port_and_drop_the_rest(self) -> None:
        rules = FIREWALL["rich_rules"](WANTED)
        assert len(rules) == 6
        assert (
            'rule priority="-20" family="ipv6" source address="2001:db8::/32"'
            ' port port="4001" protocol="tcp" accept' in rules
        )
        assert 'rule priority="-10" port port="2003" protocol="tcp" drop' in rules

    def test_check_mode_asks_and_changes_nothing(self, host: Host) -> None:
        host.command("firewall-cmd")
        answer = host.run(check=True)
        assert "firewalld: policy fedmsg-relay" in answer["changes"]
        assert not host.changing("--add", "--new", "--reload", "--delete", "--remove")

    def test_a_failure_is_said_in_its_own_words(
        self, host: Host, capsys: pytest.CaptureFixture[str]
    ) -> None:
        host.command("firewall-cmd", 'test "$1" = --state || { echo ALAS >&2; exit 1; }')
        with pytest.raises(AssertionError):  # which is for exit status 0
            host.run()
        assert "ALAS" in capsys.readouterr().err


class TestSELinux:
    LISTED = "http_port_t                    tcp      80, 2003, 443\nssh_port_t tcp 22\n"

    def test_where_it_is_not_enabled_no_port_has_a_label(self, host: Host) -> None:
        host.command("selinuxenabled", "exit 1")
        host.command("semanage")
        assert host.run(networks=[], label="amqp_port_t")["changes"] == []
        assert not host.changing("semanage")

    def test_a_port_without_a_label_gets_one_and_another_keeps_its_own(self, host: Host) -> None:
        host.command("selinuxenabled")
        host.command("semanage", f"printf '{self.LISTED}'")
        answer = host.run(networks=[], ports=[2003, 2004], label="amqp_port_t")
        assert answer["changes"] == ["SELinux: label 2004 amqp_port_t"]
        assert (
            "SELinux: port 2003 is labelled http_port_t, which is left as it is" in answer["said"]
        )
        assert host.changing("--add") == ["semanage port --add --type amqp_port_t --proto tcp 2004"]

    def test_labels_that_are_there_are_no_change(self, host: Host) -> None:
        host.command("selinuxenabled")
        host.command("semanage", f"printf '{self.LISTED}'")
        answer = host.run(networks=[], ports=[2003], label="http_port_t")
        assert answer["changes"] == []
        assert not host.changing("--add")

    def test_check_mode_labels_nothing(self, host: Host) -> None:
        host.command("selinuxenabled")
        host.command("semanage", f"printf '{self.LISTED}'")
        assert host.run(networks=[], label="amqp_port_t", ports=[2004], check=True)["changes"]
        assert not host.changing("--add")

    def test_no_label_is_wanted(self, host: Host) -> None:
        host.command("selinuxenabled")
        assert host.run(networks=[])["changes"] == []
        assert not host.changing("selinuxenabled")
