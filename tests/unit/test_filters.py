"""What the roles work out on the control host: the filters of the collection."""

from __future__ import annotations

import base64
import json
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

PATHS = sorted((ROOT / "plugins/filter").glob("*.py"))
NAMES = [path.stem for path in PATHS]
DEFAULTS = {"inbound_ports": [2003], "submit_port": 2004, "outbound_port": 4001, "http": ["l:4002"]}


def of_file(name: str) -> Any:
    return runpy.run_path(str(ROOT / f"plugins/filter/{name}.py"))[name]


class TestBus:
    def bus(self, relays: list[str], **hostvars: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = of_file("bus")(hostvars, list(hostvars), relays, DEFAULTS)
        return found

    def test_what_the_inventory_does_not_say_is_the_default(self) -> None:
        found = self.bus(["gw"], gw={}, app={})
        assert found["inbound"] == ["tcp://gw:2003"]
        assert found["submit"] == ["tcp://gw:2004"]
        assert found["outbound"] == ["tcp://gw:4001"]
        assert found["http"] == ["l:4002"]
        assert found["addresses"] == {"gw": "gw", "app": "app"}

    def test_relays_are_in_the_order_in_which_they_are_tried(self) -> None:
        found = self.bus(["b", "a"], a={}, b={"fedmsg_base_relay_submit_port": 5})
        assert found["submit"] == ["tcp://b:5", "tcp://a:2004"]
        assert found["http"] == ["l:4002"], "both have the same, which is said once"

    @pytest.mark.parametrize("address", ["2001:db8::7", "[2001:db8::7]"])
    def test_ipv6(self, address: str) -> None:
        found = self.bus(["gw"], gw={"fedmsg_base_address": address})
        assert found["relays"][0]["bus_addresses"][-1] == "tcp://[2001:db8::7]:4001"

    def test_hosts_that_serve_under_one_name_are_joined(self) -> None:
        one, two = (["tcp://a:1", "tcp://b:1"], ["tcp://a:1", "tcp://c:1"])
        found = self.bus(
            [],
            a={"fedmsg_base_extra_endpoints": {"x": one}},
            b={"fedmsg_base_extra_endpoints": {"x": two, "y": ["tcp://b:2"]}},
        )
        assert found["endpoints"] == {
            "x": ["tcp://b:1", "tcp://a:1", "tcp://c:1"],
            "y": ["tcp://b:2"],
        }

    def test_what_is_of_a_wrong_type_is_left_for_the_checks(self) -> None:
        found = self.bus(
            ["gw"],
            gw={"fedmsg_base_relay_inbound_ports": 2003, "fedmsg_base_relay_http": "http://gw/"},
            app={"fedmsg_base_extra_endpoints": "tcp://app:1"},
        )
        assert found["relays"][0]["inbound_ports"] == 2003
        assert found["inbound"] == []
        assert found["http"] == ["http://gw/"]
        assert found["endpoints"] == {"app": "tcp://app:1"}


class TestUneven:
    def test_names_in_their_order(self) -> None:
        hostvars = {"a": {"z": 1, "y": [1], "x": {"k": 1, "l": 2}}, "b": {"x": {"l": 2, "k": 1}}}
        assert of_file("uneven")(hostvars, ["a", "b"], ["z", "y", "x", "w"]) == ["z", "y"]

    def test_kinds_differ_too(self) -> None:
        assert of_file("uneven")({"a": {"z": 1}, "b": {"z": "1"}}, ["a", "b"], ["z"]) == ["z"]

    def test_each_host_is_looked_at_once(self) -> None:
        """To put together a host's variables is what costs: once a host and name was its square."""
        asked = []

        class Hostvars(dict[str, Any]):
            def __getitem__(self, host: str) -> Any:
                asked.append(host)
                return super().__getitem__(host)

        of_file("uneven")(Hostvars(a={}, b={}), ["a", "b"], ["z", "y", "x"])
        assert asked == ["a", "b"]


class TestUnknown:
    KNOWN = ("fedmsg_base_address", "fedmsg_base_relay_submit_port", "fedmsg_relay_nice")

    def unknown(self, hostvars: dict[str, Any], *seen: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = of_file("unknown")(hostvars, hostvars, self.KNOWN, seen)
        return found

    def test_of_some_hosts(self) -> None:
        found = self.unknown({"a": {"fedmsg_base_adress": 1, "other": 1}, "b": {}})
        [wrong] = found
        assert wrong == {
            "name": "fedmsg_base_adress",
            "hosts": ["a"],
            "nearest": "fedmsg_base_address",
        }

    def test_of_all_hosts(self) -> None:
        found = self.unknown({"a": {}, "b": {}}, "fedmsg_relay_ncie", "fedmsg_base_address")
        assert [(each["name"], each["hosts"]) for each in found] == [("fedmsg_relay_ncie", [])]

    def test_what_has_our_prefix_is_ours_however_far_it_is(self) -> None:
        [wrong] = self.unknown({"a": {"fedmsg_base_zzz": 1}})
        assert wrong["nearest"] in self.KNOWN

    def test_playbooks_may_have_names_of_their_own(self) -> None:
        assert self.unknown({"a": {"fedmsg_example_git_owner": 1, "fedmsg_topology": 1}}) == []

    def test_the_prefix_of_a_role_may_be_forgotten(self) -> None:
        [wrong] = self.unknown({"a": {"fedmsg_relay_submit_port": 1, "fedmsg_adress": 1}})
        assert wrong["nearest"] == "fedmsg_base_relay_submit_port"


class TestCheckReport:
    SURVEY: dict[str, Any] = {  # noqa: RUF012
        "move": {},
        "files_differing": [],
        "units": {},
        "listeners": {},
        "spool": {"waiting": 0, "failed": 0, "oldest": 0},
    }

    def report(
        self, probe: Any = None, health: Any = None, rc: int = 0, **survey: Any
    ) -> dict[str, Any]:
        said = {
            "__fedmsg_base_check_probe": {"rc": 0, "stdout": "FEDMSG OK\n"}
            if probe is None
            else probe,
            "__fedmsg_base_check_survey": {
                "rc": rc,
                "stdout": json.dumps({**self.SURVEY, **survey}),
                "stderr": "no Python",
            },
            "__fedmsg_base_check_health": health or {"skipped": True},
        }
        [found] = of_file("check_report")({"app": said}, ["app"], ["gw"], "/spool")
        return dict(found)

    def test_well(self) -> None:
        assert self.report() == {"problems": [], "line": "app: ok: FEDMSG OK"}

    def test_a_warning_is_no_problem(self) -> None:
        assert self.report({"rc": 1, "stdout": "FEDMSG WARNING"})["problems"] == []

    @pytest.mark.parametrize(
        ("found", "says"),
        [
            ({"probe": {"unreachable": True, "msg": "ssh: no"}}, "cannot be reached: ssh: no"),
            ({"probe": {}, "rc": 0}, "cannot be reached: no answer"),
            ({"probe": {"rc": 2, "stdout": "FEDMSG CRITICAL"}}, "FEDMSG CRITICAL"),
            ({"probe": {"rc": 127, "stderr": "", "msg": "no such file"}}, "no such file"),
            ({"rc": 1}, "cannot be looked at: no Python"),
            ({"files_differing": ["/etc/x"]}, "/etc/x is not as it was deployed"),
            (
                {"move": {"step": "relay", "from": "gw", "to": "b"}},
                "the relay is on its way from gw to b, and the inventory is of before",
            ),
            (
                {"move": {"step": "moved", "from": "gw", "to": "b"}},
                "the relay has moved from gw to b, and the inventory is of before",
            ),
            (
                {"units": {"fedmsg-spool.path": {"state": "failed", "enabled": True}}},
                "fedmsg-spool.path is failed",
            ),
            (
                {"units": {"logrotate.service": {"state": "failed", "enabled": False}}},
                "logs are not rotated: logrotate.service has failed",
            ),
            (
                {"units": {"fedmsg-relay.socket": {"state": "inactive", "enabled": True}}},
                "fedmsg-relay.socket starts at boot, and this host is no relay by the inventory",
            ),
            ({"listeners": {"tcp://h:1": []}}, "nobody listens on h:1"),
            (
                {"listeners": {"h:1": [{"process": "nc", "unit": "", "said": "nc holds h:1"}]}},
                "nc holds h:1",
            ),
            (
                {"health": {"status": 503, "json": {"problems": ["a", "b"]}}},
                "not healthy: a; b",
            ),
            ({"health": {"status": -1, "content": "", "msg": "refused"}}, "not healthy: refused"),
            (
                {"spool": {"waiting": 0, "failed": 2, "oldest": 0}},
                "2 messages that no relay takes are in /spool/failed",
            ),
            (
                {"spool": {"waiting": 3, "failed": 0, "oldest": 601}},
                "3 spooled messages wait, the oldest for 10 minutes",
            ),
        ],
    )
    def test_problem(self, found: dict[str, Any], says: str) -> None:
        report = self.report(**found)
        assert report["problems"] == [says]
        assert report["line"] == f"app: WRONG: {says}"

    def test_a_move_that_the_inventory_has_is_over(self) -> None:
        assert not self.report(move={"step": "moved", "from": "old", "to": "gw"})["problems"]

    def test_what_waits_shortly_is_said(self) -> None:
        report = self.report(spool={"waiting": 3, "failed": 0, "oldest": 600})
        assert report["line"] == "app: ok: 3 spooled messages wait, FEDMSG OK"


class TestReleaseFiles:
    def test_by_checksum_and_whole(self, tmp_path: Path) -> None:
        for name in ("b", "a"):
            (tmp_path / name).write_text(f"{name}\r\nü")
        paths = [str(tmp_path / name) for name in ("b", "a")]
        found = of_file("release_files")(paths, "/x/", mode="0755")
        assert list(found) == ["/x/a", "/x/b"]
        assert set(found["/x/a"]) == {"sha256", "mode"}
        whole = of_file("release_files")(paths, "/x", whole=True)
        assert whole["/x/a"] == {"content": "a\r\nü", "mode": "0644"}
        differs = runpy.run_path(str(ROOT / "files/ansible/survey.py"))["has"]
        for path in found:
            content = whole[path]["content"].encode()
            assert differs(content, found[path])
            assert not differs(content + b"\n", found[path])

    def test_files_below_a_folder_keep_their_places(self, tmp_path: Path) -> None:
        for name in ("a.py", "room/a.py", "room/__pycache__/a.pyc", "README"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name)
        found = of_file("release_files")([str(tmp_path)], "/x/pkg", whole=True)
        assert {path: file["content"] for path, file in found.items()} == {
            "/x/pkg/a.py": "a.py",
            "/x/pkg/room/a.py": "room/a.py",
        }


class TestScrape:
    def scrape(self, *http: str, host: str = "gw", scraper: str = "noc", **more: Any) -> Any:
        relay = {"host": host, "address": more.pop("address", host), "http": list(http)}
        defaults = {"environment": "dev", "topic_prefix": "org.fedoraproject"}
        return of_file("scrape")([relay], {host: more}, defaults, scraper, {"site": "rdu"})

    @pytest.mark.parametrize(
        ("http", "target"),
        [
            (["127.0.0.1:4002", "gw:4003", "other:4004"], "gw:4003"),
            (["localhost:1", "[::1]:2", "[2001:db8::7]:3"], "[2001:db8::7]:3"),
            (["0.0.0.0:4002"], "relay.example.org:4002"),
            (["[::]:4002"], "relay.example.org:4002"),
        ],
    )
    def test_the_first_address_that_others_reach(self, http: list[str], target: str) -> None:
        found = self.scrape(*http, address="relay.example.org")
        assert [each["targets"] for each in found["targets"]] == [[target]]
        assert found["unreachable"] == []

    def test_all_addresses_of_a_host_that_is_known_by_its_ipv6_address(self) -> None:
        [found] = self.scrape("[::]:4002", address="2001:db8::7")["targets"]
        assert found["targets"] == ["[2001:db8::7]:4002"]

    @pytest.mark.parametrize("http", [[], ["127.0.0.1:4002"], ["[::1]:4002", "localhost:4002"]])
    def test_what_only_its_own_host_reaches(self, http: list[str]) -> None:
        assert self.scrape(*http) == {"targets": [], "unreachable": ["gw"]}

    def test_prometheus_on_the_relays_own_host(self) -> None:
        [found] = self.scrape("127.0.0.1:4002", scraper="gw")["targets"]
        assert found["targets"] == ["127.0.0.1:4002"]
        [found] = self.scrape("127.0.0.1:4002", "gw:4002", scraper="gw")["targets"]
        assert found["targets"] == ["gw:4002"]

    def test_labels_are_those_of_the_inventory_and_further_ones(self) -> None:
        found = self.scrape("gw:1", fedmsg_base_environment="prod")["targets"][0]["labels"]
        assert found == {
            "relay": "gw",
            "environment": "prod",
            "topic_prefix": "org.fedoraproject",
            "site": "rdu",
        }


class TestAlertRules:
    def test_another_address_of_the_sop(self) -> None:
        text = """'{{ or $externalLabels.fedmsg_relay_sop "sop.html" }}#flood' sop.html"""
        found = of_file("alert_rules")(text, "https://x/")
        assert (
            found == """'{{ or $externalLabels.fedmsg_relay_sop "https://x/" }}#flood' sop.html"""
        )

    def test_rules_without_a_link_are_not_ours(self) -> None:
        with pytest.raises(ValueError, match="no alert of these rules has the link"):
            of_file("alert_rules")("groups: []", "https://x/")


class TestNrpeCommands:
    def test_a_host_that_only_publishes(self) -> None:
        assert of_file("nrpe_commands")([], "") == {
            "check_fedmsg_bus": "/usr/local/bin/fedmsg-probe"
        }

    def test_a_relay_and_hubs_in_words_of_a_shell(self) -> None:
        assert of_file("nrpe_commands")(["fedmsg-hub", "a b"], "gw01") == {
            "check_fedmsg_bus": "/usr/local/bin/fedmsg-probe",
            "check_fedmsg_relay": "/usr/local/bin/fedmsg-probe --host gw01",
            "check_fedmsg_consumers": "/usr/local/bin/fedmsg-probe --consumer all"
            " --monitoring fedmsg-hub --monitoring 'a b'",
        }


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_file_is_that_of_its_filter(name: str) -> None:
    found = runpy.run_path(str(ROOT / f"plugins/filter/{name}.py"))
    assert list(found["FilterModule"]().filters()) == [name]
    assert yaml.safe_load(found["EXAMPLES"])


def run(*command: str) -> str:
    program = shutil.which(command[0]) or command[0]
    done = subprocess.run(
        [program, *command[1:]],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_has_a_page() -> None:
    names = [f"messaging_sig.fedmsg.{name}" for name in NAMES]
    pages = json.loads(run("ansible-doc", "--type", "filter", "--json", *names))
    for name in NAMES:
        page = pages[f"messaging_sig.fedmsg.{name}"]
        assert page["doc"]["short_description"]
        assert page["examples"]
        assert page["return"]["_value"]["description"]
        parameters = set(page["doc"]["options"]) - {"_input"}
        code = of_file(name).__code__
        assert parameters == set(code.co_varnames[1 : code.co_argcount])


def test_the_path_file_is_one_line_that_names_the_library() -> None:
    """Jinja by itself drops an end of line, and every host's file would be written anew."""
    variables = ROOT / "roles/fedmsg_base/vars/main.yml"
    show = "msg={{ __fedmsg_base_path_file.content | to_json | b64encode }}"
    said = run("ansible", "localhost", "--extra-vars", f"@{variables}",
               "--module-name", "ansible.builtin.debug", "--args", show)  # fmt: skip
    [encoded] = re.findall(r"[\w+/=]{20,}", said)
    assert json.loads(base64.b64decode(encoded)) == "/usr/local/lib/fedmsg-relay\n"


def test_templates_name_what_must_be_equal() -> None:
    """What is rendered once for all hosts depends on nothing that a host may have of its own."""
    shared = yaml.safe_load((ROOT / "roles/fedmsg_base/vars/main.yml").read_text())
    names = {*shared["__fedmsg_base_shared_variables"], "__fedmsg_base_bus"}
    rendered = [*(ROOT / "templates/fedmsg.d").iterdir()]
    rendered += [
        ROOT / f"templates/fedmsg-{each}.j2" for each in ("sysusers.conf", "tmpfiles.conf")
    ]
    rendered += (ROOT / "templates").glob("fedmsg-spool.*.j2")
    assert len(rendered) == 9
    for template in rendered:
        marked = " ".join(re.findall(r"\{[{%].*?[%}]\}", template.read_text(), re.DOTALL))
        used = set(re.findall(r"\b(?:__)?(?:fedmsg|ansible|inventory|host)_?\w+", marked))
        assert used - names <= {"ansible_managed", "hosts"}, template


def test_no_template_prints_json() -> None:
    assert not list((ROOT / "templates").glob("**/*.json.j2"))
