"""The relay's state for Prometheus, in its text format.

Counters are since the relay's start: Prometheus knows how to go on after a restart. Every cause of
a loss is a label, so that an alert can say what was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..escapes import escaped
from . import health
from .health import Feed, JournalFile

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Addresses that have a series of their own; more are summed up.
MOST_LISTENERS = 100
OTHERS = "others"

SIDES = ("inbound", "submit", "outbound", "http")
NOT_STRICT = "NaN or Infinity"
CUT_OFF = ("too slow", "sent too much", "vanished")
JOURNAL_STATES = ("ok", "failing", "opening", "none")


def text(feed: Feed, journal: JournalFile | None, healthy: bool) -> bytes:
    """What `/metrics` answers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(list(map(_shown, _families(feed, journal, healthy)))))
    return generate_latest(registry)


def _shown(family: Metric) -> Metric:
    """With labels that nothing can be forged with: some have what peers say of themselves."""
    family.samples = [
        sample._replace(labels={name: escaped(text) for name, text in sample.labels.items()})
        for sample in family.samples
    ]
    return family


class _Collector(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(feed: Feed, journal: JournalFile | None, healthy: bool) -> Iterator[Metric]:
    yield _gauge("healthy", "1 if /health says so, else 0", int(healthy))
    yield _gauge("state_age_seconds", "Time since the relay last said that it runs", feed.age)
    state = feed.state
    if not state:
        return
    version = str(state.get("version", "unknown"))
    yield InfoMetricFamily("fedmsg_relay_build", "Version of the relay", {"version": version})
    yield _gauge("start_time_seconds", "When the relay started", _number(state.get("started")))
    yield from _messages(health.part(state, "counts"))
    yield from _senders(health.part(state, "senders"))
    yield from _desk(health.part(state, "desk"))
    yield from _submits(health.part(state, "submit"))
    yield from _policy(health.part(state, "policy"))
    yield from _journal(health.part(state, "journal"))
    failing = bool(health.part(state, "log"))
    yield _gauge("log_failing", "1 while the log cannot be written, else 0", failing)
    if journal is not None:
        yield _gauge("journal_file_bytes", "Disk space of the journal", journal.bytes)
        if journal.oldest is not None:
            help_text = "When the oldest message of the backlog was received"
            yield _gauge("journal_oldest_timestamp_seconds", help_text, journal.oldest)
    yield _gauge("listeners", "Listeners connected", _number(state.get("listeners")))
    yield from _comings(state)
    yield from _callers(health.part(state, "connections"))
    yield from _refused(health.refused(feed))
    help_text = "Messages held back since the start until listeners are back"
    yield _gauge("held_messages", help_text, _number(state.get("held")))
    help_text = "Messages that listeners missed because they were too slow, or at most so many"
    yield _counter("listener_missed_messages", help_text, _number(state.get("missed")))
    yield from _slow_listeners(health.slow_listeners(state))


def _messages(counts: dict[str, Any]) -> Iterator[Metric]:
    family = CounterMetricFamily(
        "fedmsg_relay_messages",
        "Messages received, by what became of them: untouched and repaired ones were relayed",
        labels=("outcome", "cause"),
    )
    family.add_metric(("untouched", ""), _number(counts.get("untouched")))
    for outcome in ("repaired", "dropped"):
        for cause, number in sorted(health.part(counts, outcome).items()):
            family.add_metric((outcome, str(cause)), _number(number))
    yield family
    noted = CounterMetricFamily(
        "fedmsg_relay_messages_noted",
        "Messages relayed as they came that not every listener can read, by what is in them",
        labels=("cause",),
    )
    for cause, number in sorted({NOT_STRICT: 0, **health.part(counts, "noted")}.items()):
        noted.add_metric((str(cause),), _number(number))
    yield noted


def _senders(senders: dict[str, Any]) -> Iterator[Metric]:
    yield _gauge("memory_bytes", "Memory of the relay's process", _number(senders.get("memory")))
    help_text = "Times that much memory came to be in use"
    yield _counter("memory_alarms", help_text, _number(senders.get("alarms")))
    cut = CounterMetricFamily(
        "fedmsg_relay_connections_cut",
        "Connections that the relay ended for what they cost the others, by cause",
        labels=("cause",),
    )
    for cause, number in sorted(health.part(senders, "cut").items()):
        cut.add_metric((str(cause),), _number(number))
    yield cut


def _desk(desk: dict[str, Any]) -> Iterator[Metric]:
    help_text = "Large messages that are being checked a little at a time"
    yield _gauge("checking_messages", help_text, _number(desk.get("messages")))
    yield _gauge("checking_bytes", "Bytes of these", _number(desk.get("bytes")))


def _submits(submit: dict[str, Any]) -> Iterator[Metric]:
    family = CounterMetricFamily(
        "fedmsg_relay_submits",
        "Messages submitted, by the answer; a duplicate was stored before",
        labels=("result", "cause"),
    )
    for result in ("accepted", "duplicate"):
        family.add_metric((result, ""), _number(submit.get(result)))
    for cause, number in sorted(health.part(submit, "refused").items()):
        family.add_metric(("refused", str(cause)), _number(number))
    yield family
    help_text = "Messages submitted that wait for the disk"
    yield _gauge("submits_pending", help_text, _number(submit.get("pending")))


def _policy(policed: dict[str, Any]) -> Iterator[Metric]:
    family = CounterMetricFamily(
        "fedmsg_relay_policy_messages",
        "Messages whose senders relay_policy does not let publish them; marked ones were relayed",
        labels=("side", "outcome"),
    )
    messages = health.part(policed, "messages")
    for side in sorted(messages):
        for outcome, number in sorted(health.part(messages, side).items()):
            family.add_metric((str(side), str(outcome)), _number(number))
    yield family


def _journal(journal: dict[str, Any]) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "fedmsg_relay_journal_state", "1 for the state the journal is in", labels=("state",)
    )
    for state in JOURNAL_STATES:
        states.add_metric((state,), int(journal.get("state") == state))
    yield states
    help_text = "Messages written to the journal"
    yield _counter("journal_written", help_text, _number(journal.get("written")))
    help_text = "Messages relayed that are missing from the journal"
    yield _counter("journal_missing", help_text, _number(journal.get("unjournaled")))
    help_text = "Messages that went from the backlog before their age, for want of room"
    yield _counter("journal_trimmed_early", help_text, _number(journal.get("trimmed_early")))
    last_seq = _number(journal.get("last_seq"))
    yield _gauge("journal_last_seq", "Sequence number of the message stored last", last_seq)
    if "clock_jumps" in journal:
        help_text = "Jumps of the host's clock since the start"
        yield _counter("clock_jumps", help_text, _number(journal.get("clock_jumps")))
    help_text = "Messages that wait to be written to the journal"
    yield _gauge("journal_waiting_messages", help_text, _number(journal.get("waiting")))
    help_text = "Bytes of the messages that wait"
    yield _gauge("journal_waiting_bytes", help_text, _number(journal.get("waiting_bytes")))


def _slow_listeners(slow: list[dict[str, Any]]) -> Iterator[Metric]:
    missed = GaugeMetricFamily(
        "fedmsg_relay_slow_listener_missed_messages",
        "Messages a listener missed because it was too slow; exact=false: at most so many",
        labels=("address", "exact"),
    )
    since = GaugeMetricFamily(
        "fedmsg_relay_slow_listener_since_seconds",
        "When a listener that is too slow began to be",
        labels=("address",),
    )
    # The worst ones by themselves: their number must be bounded, and nothing may be left out.
    worst = sorted(slow, key=lambda each: -_number(each.get("missed")))
    for each in worst[:MOST_LISTENERS]:
        address, exact = str(each.get("address")), str(bool(each.get("exact"))).lower()
        missed.add_metric((address, exact), _number(each.get("missed")))
        since.add_metric((address,), _number(each.get("since")))
    others = worst[MOST_LISTENERS:]
    if others:
        missed.add_metric((OTHERS, "false"), sum(_number(each.get("missed")) for each in others))
    yield missed
    yield since
    yield _gauge("slow_listeners", "Listeners that missed messages lately", len(slow))


def _comings(state: dict[str, Any]) -> Iterator[Metric]:
    protocols = GaugeMetricFamily(
        "fedmsg_relay_listener_protocols",
        "Listeners connected, by what they speak: older is ZMTP 1 and 2",
        labels=("protocol",),
    )
    for protocol, number in sorted(health.part(state, "listener_protocols").items()):
        protocols.add_metric((str(protocol),), _number(number))
    yield protocols
    help_text = "Connections made to the outbound port"
    yield _counter("listener_connections", help_text, _number(state.get("listener_connections")))
    help_text = "Listeners that came, went or were cut off without a line in the log"
    unsaid = _number(state.get("listener_changes_not_logged"))
    yield _counter("listener_changes_not_logged", help_text, unsaid)
    parted = CounterMetricFamily(
        "fedmsg_relay_listeners_cut_off",
        "Listeners whose connection the relay has ended, by the reason",
        labels=("cause",),
    )
    for cause in CUT_OFF:
        parted.add_metric((cause,), _number(health.part(state, "listeners_cut_off").get(cause)))
    yield parted


def _callers(connections: dict[str, Any]) -> Iterator[Metric]:
    family = CounterMetricFamily(
        "fedmsg_relay_publisher_connections",
        "Connections of publishers, by the port they were made to",
        labels=("side",),
    )
    for side, number in sorted(health.part(connections, "sides").items()):
        family.add_metric((str(side),), _number(number))
    yield family


def _refused(refused: dict[str, Any]) -> Iterator[Metric]:
    sides = CounterMetricFamily(
        "fedmsg_relay_refused_connections",
        "Connections of addresses that relay_allow does not name, by the port they were made to",
        labels=("side",),
    )
    for side in SIDES:
        sides.add_metric((side,), _number(health.part(refused, "sides").get(side)))
    yield sides
    # Of whom: the last ones, or else their number would have no bound.
    peers = GaugeMetricFamily(
        "fedmsg_relay_refused_peer_connections",
        "Connections refused, of those addresses that were refused last",
        labels=("address",),
    )
    for peer in refused["peers"]:
        peers.add_metric((peer["address"],), peer["connections"])
    yield peers


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"fedmsg_relay_{name}", help_text, value=value)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(f"fedmsg_relay_{name}", help_text, value=value)


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0.0
