"""The way of a message that a script has published: receive, check, judge, emit, journal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import zmq

from ..checks.wire import Checked
from ..journal.recorder import Recorder
from ..journal.store import make_row
from .account import Account
from .desk import INBOUND, Desk
from .inbound import Inbound
from .outbound import Outbound
from .policing import Policing, address_of
from .senders import Senders, sender

# Seconds for which batches are relayed before timers, signals and listeners get their turn.
TURN = 0.01


class Passing:
    """From the inbound side of one relay to its listeners and its journal, if it has one."""

    def __init__(
        self,
        inbound: Inbound,
        desk: Desk,
        outbound: Outbound,
        recorder: Recorder | None,
        account: Account,
        senders: Senders,
        policing: Policing | None = None,
    ) -> None:
        self._inbound = inbound
        self._desk = desk
        self._outbound = outbound
        self._recorder = recorder
        self._account = account
        self._senders = senders
        self._policing = policing
        inbound.skipping.on_many = senders.cut_off

    def relay_batches(self) -> None:
        """Pass on what has come, many at a time when many come. Never waits."""
        end = time.perf_counter() + TURN
        while not self._desk.is_full(INBOUND):
            self._inbound.keeps_heads = (
                self._senders.is_alarmed or self._policing is not None or not self._desk.is_idle
            )
            received = self._inbound.receive()
            heads = self._inbound.heads
            self._senders.took(heads)
            if not received:
                return
            started = time.perf_counter()
            if self._policing is None:
                checked = self._desk.check_all(received, heads, sender, self._later)
            else:
                checked = self._judge_all(self._policing, received, heads)
            self._pass_on(checked)
            ended = time.perf_counter()
            if checked:
                self._account.enter(checked, ended - started)
            if ended > end:
                return

    def _judge_all(
        self,
        policing: Policing,
        received: Sequence[list[bytes]],
        heads: Sequence[zmq.Frame | None],
    ) -> list[Checked]:
        """What has come of messages at once, each checked and judged by whose it is."""
        at_once = []
        for frames, head in zip(received, heads):
            # Now: a frame that was kept would keep the buffer that it was received in.
            address = address_of(head)
            done = partial(self._judge_later, policing, address)
            checked = self._desk.check(frames, partial(sender, head), done)
            if checked is not None:
                at_once.append(policing.judged(checked, address, INBOUND)[0])
        return at_once

    def _judge_later(self, policing: Policing, address: str | None, checked: Checked) -> None:
        self._later(policing.judged(checked, address, INBOUND)[0])

    def _pass_on(self, checked: list[Checked]) -> None:
        self._outbound.emit([each.frames for each in checked if each.frames is not None])
        if self._recorder is not None:
            now = self._recorder.now()
            self._recorder.add([
                make_row((now, each.topic, each.msg_id, each.frames[1], False))
                for each in checked
                if each.frames is not None
            ])  # fmt: skip

    def _later(self, checked: Checked) -> None:
        """Pass on what took long to check."""
        self._pass_on([checked])
        self._account.enter([checked], 0.0)
