"""Messages whose sender may not publish them: what `relay_policy` says is done to these.

Both topics of a message are judged: the frame's, by which listeners subscribe, and the one in the
body, which they show and act on. The sender is who is at the other end of the connection.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from dataclasses import asdict, dataclass
from typing import Any

import zmq

from .. import log
from ..checks import networks, policy
from ..checks.wire import Checked
from ..config import Config
from ..rate_limit import RateLimit
from .desk import INBOUND, SUBMIT

# The cause that is counted, and what becomes of a message.
NOT_ALLOWED = "not allowed by relay_policy"
DROPPED, REFUSED, MARKED = "dropped", "refused", "marked"

# Addresses that are named, the last ones.
NAMED = 50
# Seconds from one line about an address to the next, and lines in that time about all of them.
SAID_AGAIN = 60.0
LINES = 10
# Characters of a topic that are shown.
SHOWN = 200

UNKNOWN = "an unknown address"

logger = logging.getLogger(log.NAME)


@dataclass
class Offender:
    """An address that published what it may not: how many messages, and the last one's topic."""

    address: str
    messages: int = 0
    topic: str = ""
    # What became of that one, and when, in Unix time.
    outcome: str = ""
    last: float = 0.0
    # When a line of the log last named it, by time.monotonic().
    said: float = float("-inf")


def of(config: Config) -> Policing | None:
    """None where `relay_policy_mode` is `off`. Raises ConfigError."""
    found = policy.configured(config)
    return None if found is None else Policing(found, config[policy.MODE_KEY] == policy.REFUSE)


class Policing:
    """Judges messages, and keeps the account of those that are not allowed."""

    def __init__(self, rules: policy.Policy, refuses: bool) -> None:
        self._rules = rules
        self._refuses = refuses
        # Since the start: what became of messages, by the side that they came from.
        outcomes = {INBOUND: DROPPED, SUBMIT: REFUSED}
        self._outcomes = {
            side: outcome if refuses else MARKED for side, outcome in outcomes.items()
        }
        self.counts: Counter[tuple[str, str]] = Counter()
        self._offenders: OrderedDict[str, Offender] = OrderedDict()  # the last one is last
        self._lines = RateLimit(LINES, SAID_AGAIN)

    def judged(self, checked: Checked, address: str | None, side: str) -> tuple[Checked, str]:
        """What is left of a message, and why its sender may not publish it, or nothing.

        `address` is that of `address_of`. A message that was dropped before stays as it is.
        """
        if checked.frames is None:
            return checked, ""
        topic, where = checked.topic, ""
        pattern = self._rules.against(address, topic)
        if pattern is None and checked.body_topic != topic:
            topic, where = checked.body_topic, " in the body"
            pattern = self._rules.against(address, topic)
        if pattern is None:
            return checked, ""
        who = networks.plain(address) if address is not None else UNKNOWN
        why = f"relay_policy does not let {who} publish {topic[:SHOWN]!a}{where}"
        self._enter(who, topic, side, f"{why}, by {pattern!a}")
        return (Checked(None, NOT_ALLOWED, checked.topic) if self._refuses else checked), why

    def state(self) -> dict[str, Any]:
        """For health and metrics: `messages` by side and outcome, `senders` who were last."""
        messages: dict[str, dict[str, int]] = {}
        for side, outcome in self._outcomes.items():
            messages[side] = {outcome: self.counts[side, outcome]}
        senders = []
        for each in self._offenders.values():
            senders.append(asdict(each))
            del senders[-1]["said"]
        return {"messages": messages, "senders": senders}

    def _enter(self, who: str, topic: str, side: str, line: str) -> None:
        outcome, now = self._outcomes[side], time.monotonic()
        self.counts[side, outcome] += 1
        offender = self._offenders.setdefault(who, Offender(who))
        self._offenders.move_to_end(who)
        if len(self._offenders) > NAMED:
            self._offenders.popitem(last=False)
        offender.messages += 1
        offender.topic, offender.outcome, offender.last = topic[:SHOWN], outcome, time.time()
        if now - offender.said < SAID_AGAIN or not self._lines.allows("all"):
            return
        offender.said = now
        more = "; of others no more is said for a minute" * self._lines.is_last("all")
        logger.warning(
            "%s: %s; messages of it so far: %d%s", outcome, line, offender.messages, more
        )


def address_of(head: zmq.Frame | None) -> str | None:
    """The numeric address of who has sent the message with this frame, as its socket has it.

    libzmq asks the kernel for it when it accepts a connection, and a peer cannot set it. None for
    peers of before ZMTP 3, of which libzmq does not keep it.
    """
    if head is None:
        return None
    try:
        return str(head.get("Peer-Address"))
    except zmq.ZMQError:
        return None
