"""The alerts: each fires on its fault alone, and opens the SOP where it says what to do."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from fedmsg_relay.backlog import metrics
from fedmsg_relay.backlog.health import Feed, JournalFile

from tests.conftest import ROOT

RULES = ROOT / "files/prometheus/fedmsg-relay.rules.yml"
TESTS = ROOT / "tests/alerts/fedmsg-relay.test.yml"
PAGE = (ROOT / "docs/alerts.adoc").read_text()
SOP = (ROOT / "docs/sop.adoc").read_text()

ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
}
INCIDENTS = {path.stem for path in (ROOT / "docs/incidents").glob("*.adoc")}
SECTION = re.compile(r'^\{\{ or \$externalLabels\.fedmsg_relay_sop "sop\.html" \}\}#([\w-]+)$')


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' own checker: set-up fetches it where it is not installed."""
    done = subprocess.run(
        [ROOT / "tools/setup/promtool"], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def section(alert: str) -> str:
    """The id of the SOP's section that an alert opens."""
    matched = SECTION.match(ALERTS[alert]["annotations"]["runbook_url"])
    assert matched, alert
    return matched[1]


def table(anchor: str) -> list[list[str]]:
    """The rows of a table of the page, without its head: the text of each cell."""
    text = PAGE.split(f"[[{anchor}]]")[1].split("|===")[1]
    rows = [block for block in text.split("\n\n") if block.strip()]
    return [[cell.strip() for cell in row.split("|")[1:]] for row in rows[1:]]


def severities() -> dict[str, str]:
    """The severity of each incident, by the SOP's table."""
    text = SOP.split("[[severity]]")[1].split("|===")[1]
    found = {}
    for row in text.split("\n\n")[1:]:
        cells = [cell.strip() for cell in row.split("|")[1:]]
        found.update(dict.fromkeys(re.findall(r"<<([\w-]+)>>", cells[-1]), cells[0]))
    return found


def test_each_alert_fires_on_its_fault_and_not_beside_it_and_resolves(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "test", "rules", TESTS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_each_alert_has_a_test_in_which_it_is_silent_fires_and_resolves() -> None:
    tests = {test["name"]: test for test in yaml.safe_load(TESTS.read_text())["tests"]}
    assert list(tests) == list(ALERTS)
    for name, test in tests.items():
        looks = [look for look in test["alert_rule_test"] if look["alertname"] == name]
        fires = [bool(look["exp_alerts"]) for look in looks]
        assert fires[0] is False and fires[-1] is False and True in fires, name
        # A healthy one beside it, which is in none of the alerts.
        series = " ".join(each["series"] for each in test["input_series"])
        assert 'instance="good:' in series, name
        assert "good:" not in str([look["exp_alerts"] for look in looks]), name


def test_the_rules_are_valid(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def answer() -> bytes:
    """What /metrics answers of a relay that has counted something of each kind."""
    feed = Feed()
    counts = {"untouched": 3, "repaired": {"wrapped": 1}, "dropped": {"too large": 2}}
    state = {
        "version": "1.2.3",
        "counts": counts,
        "submit": {"accepted": 1, "duplicate": 1, "refused": {"journal": 2}},
        "journal": {"state": "ok"},
        "senders": {"memory": 1 << 26, "alarms": 1, "cut": {"too many frames": 1}},
        "slow_listeners": [{"address": "10.0.0.1:2", "since": 1.0, "missed": 3, "exact": False}],
        "refused": {
            "sides": {"inbound": 1},
            "peers": [{"address": "10.0.0.9", "connections": 3, "last": time.time()}],
        },
    }
    feed.take(state, time.monotonic())
    return metrics.text(feed, JournalFile(4096, 77.5), True)


def test_a_scrape_is_as_prometheus_wants_it(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=answer(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode, done.stdout) == (0, b"")


def test_every_metric_that_an_alert_asks_for_is_scraped() -> None:
    scraped = set(re.findall(r"^(\w+)", answer().decode(), re.MULTILINE))
    asked = {
        name for rule in ALERTS.values() for name in re.findall(r"\bfedmsg_relay_\w+", rule["expr"])
    }
    assert asked and asked <= scraped


@pytest.mark.parametrize("alert", ALERTS)
class TestAlert:
    def test_opens_a_section_of_the_sop(self, alert: str) -> None:
        assert section(alert) in INCIDENTS
        assert f"include::incidents/{section(alert)}.adoc[]" in SOP
        text = (ROOT / "docs/incidents" / f"{section(alert)}.adoc").read_text()
        assert text.startswith(f"[#{section(alert)}.incident]\n")

    def test_has_the_severity_of_that_section(self, alert: str) -> None:
        assert ALERTS[alert]["labels"]["severity"] == severities()[section(alert)]

    def test_says_where_and_how_much(self, alert: str) -> None:
        summary = ALERTS[alert]["annotations"]["summary"]
        assert "$labels.instance" in summary
        # What is either so or not has no number.
        counts = "==" not in ALERTS[alert]["expr"]
        assert ("$value" in summary) is counts


class TestPage:
    def test_every_alert_is_in_the_table_with_the_section_that_it_opens(self) -> None:
        rows = {row[0].strip("`"): row[1] for row in table("alerts")}
        assert rows == {name: f"link:sop.html#{section(name)}[{section(name)}]" for name in ALERTS}

    def test_each_incident_is_seen_or_has_its_reason(self) -> None:
        seen = self.seen()
        reasons = {row[0]: row[1] for row in table("unseen")}
        assert len(seen) == len(set(seen))
        assert sorted([*seen, *reasons]) == sorted(INCIDENTS)
        assert all(len(reason) > 20 for reason in reasons.values())

    def test_an_alert_sees_the_incident_that_it_opens(self) -> None:
        for name, _, incidents in table("alerts"):
            assert section(name.strip("`")) in incidents

    def test_the_figure(self) -> None:
        found = re.search(r"Of the (\d+) incidents of the SOP the alerts see (\d+)\.", PAGE)
        assert found
        assert (int(found[1]), int(found[2])) == (len(INCIDENTS), len(self.seen()))

    @staticmethod
    def seen() -> list[str]:
        return [
            word for row in table("alerts") for word in re.findall(r"[\w-]+", row[2].split(".")[0])
        ]


def test_the_page_names_the_file() -> None:
    assert f"`{Path(RULES).relative_to(ROOT)}`" in PAGE
