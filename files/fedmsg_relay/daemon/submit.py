"""The submit address: messages that are acknowledged once they are on disk.

A request is `[..., b"", topic, body]`, REQ or DEALER to ROUTER. The reply, one JSON object in
UTF-8, follows the same envelope: `{"ok": true, "seq": 17, "msg_id": "...", "time": 1795478059.1}`,
or `{"ok": false, "error": "...", "retry": true}`. See docs/protocol.adoc.

A message takes these steps, and is in `_pending` from the first to the last: its msg_id is looked
up in the journal; if it is new, it is emitted; it is written; the reply goes out. So it is relayed
once, however often it is submitted, unless the relay is killed between emitting and writing it.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Callable

import zmq

from .. import log, sockets
from ..checks.wire import INTERNAL_ERROR, UNSEEN, Checked
from ..config import Config
from ..journal.recorder import Found, NotFound, NotStored, Recorder, Result, Stored
from ..journal.store import Row
from ..rate_limit import RateLimit
from .desk import SUBMIT, Desk
from .inbound import largest_frame
from .policing import NOT_ALLOWED, Policing, address_of
from .senders import Senders
from .skipping import Skipping

# Messages taken, and not yet answered, before the next one is left in its sender's queue.
PENDING_MESSAGES = 10_000
PENDING_BYTES = 24 << 20

# Messages taken in one turn of the loop, and seconds for them: inbound must have its turn every few
# milliseconds.
BATCH = 200
TURN = 0.01

# Frames and bytes of an envelope, which goes back with the reply: a routing id, and what the sender
# tells its requests apart by.
ENVELOPE_FRAMES = 16
ENVELOPE_BYTES = 1024
# Replies that wait for one sender. One that does not read them has more of them dropped.
UNREAD = PENDING_MESSAGES
# Characters of a msg_id, which goes back with the reply, too. fedmsg's have 41.
LONGEST_ID = 1000

# Senders that may wait for one and the same message.
WAITERS = 100

NOT_A_REQUEST = "not a request"
NOT_COMPLETE = "not a complete message"
NO_MSG_ID = "an empty msg_id"
OTHER_MESSAGE = "another message has this msg_id"
LOOKUP = "the journal cannot be read"
BUSY = "too much to check at present"

# A number: the arithmetic of enumerations takes longer than the receiving.
_NOBLOCK = int(zmq.NOBLOCK)

logger = logging.getLogger(log.NAME)


@dataclass
class SubmitCounts:
    """Since the start: `accepted` were relayed, of these and of `duplicate` the sender knows."""

    accepted: int = 0
    duplicate: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass
class _Pending:
    row: Row
    frames: list[bytes]
    waiting: list[list[bytes]]  # envelopes, each beginning with the routing id of its sender


class Submit:
    """The ROUTER socket of one relay. `emit` sends `[topic, body]` to the listeners."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        config: Config,
        recorder: Recorder,
        desk: Desk,
        emit: Callable[[list[list[bytes]]], None],
        senders: Senders,
        policing: Policing | None = None,
    ) -> None:
        self.socket = sockets.make(context, zmq.ROUTER, config)
        # As for inbound: what is a little too large gets an answer.
        self.socket.setsockopt(zmq.MAXMSGSIZE, largest_frame(config))
        # A sender that does not read its replies has them dropped, and harms nobody.
        self.socket.setsockopt(zmq.SNDTIMEO, 0)
        self.socket.setsockopt(zmq.SNDHWM, UNREAD)
        # The second frame of each request of this turn: it knows who has sent it.
        self._heads: list[zmq.Frame] = []
        self._senders = senders
        self._skipping = Skipping()
        self._skipping.on_many = senders.cut_off
        self.counts = SubmitCounts()
        # Called for each message that was emitted, once.
        self.on_emitted: Callable[[], None] = lambda: None
        self._recorder = recorder
        self._desk = desk
        self._emit = emit
        self._policing = policing
        self._pending: dict[str, _Pending] = {}
        self._pending_bytes = 0
        self._warnings = RateLimit()

    def __len__(self) -> int:
        """Messages that are taken and not yet answered or on disk."""
        return len(self._pending)

    @property
    def is_full(self) -> bool:
        """Whether no request should be read for now: they wait at their senders."""
        return len(self._pending) >= PENDING_MESSAGES or self._pending_bytes >= PENDING_BYTES

    def receive(self) -> None:
        """Take requests, as many as there are and may be. Never waits."""
        end = time.monotonic() + TURN
        self._heads = []
        try:
            for _ in range(BATCH):
                if self.is_full or self._desk.is_full(SUBMIT) or time.monotonic() > end:
                    return
                if not self._skipping.go_on(self.socket, end):
                    return
                self._receive(end)
        except zmq.Again:
            pass
        finally:
            self._senders.took(self._heads)

    def _receive(self, end: float) -> None:
        """Take one request. Of very many frames it is refused by the first of them."""
        receive = self.socket.recv
        frame = receive(_NOBLOCK, False)
        frames, head = [frame.bytes], None
        while frame.more:
            frame = receive(_NOBLOCK, False)
            frames.append(frame.bytes)
            if len(frames) == 2:  # the first is libzmq's own, and knows nothing
                head = frame
                self._heads.append(frame)
            elif len(frames) > ENVELOPE_FRAMES + 3 and frame.more:
                self._skipping.begin(self._heads[-1], len(frames))
                self._skipping.go_on(self.socket, end)
                break
        self._request(frames, head)

    def take(self, result: Result) -> None:
        """Go on with what the journal has answered."""
        if isinstance(result, Found):
            for msg_id, seq in result.seqs.items():
                if msg_id in result.others:
                    self._refuse_pending(msg_id, OTHER_MESSAGE, OTHER_MESSAGE, retry=False)
                else:
                    self._found(msg_id, seq)
        elif isinstance(result, NotFound):
            for msg_id in result.msg_ids:
                self._refuse_pending(msg_id, LOOKUP, f"{LOOKUP}: {result.error}", retry=True)
        elif isinstance(result, Stored):
            for msg_id, seq in result.seqs:
                pending = self._forget(msg_id)
                self._acknowledge(pending.waiting, msg_id, seq)
        elif isinstance(result, NotStored):
            for msg_id in result.msg_ids:
                if not result.kept:
                    self._refuse_pending(msg_id, INTERNAL_ERROR, result.error, retry=False)
                    continue
                # It stays pending: it has been emitted, and must not be once more. The row is kept
                # and will be on disk when the message is submitted again, or soon after.
                pending = self._pending[msg_id]
                waiting, pending.waiting = pending.waiting, []
                for envelope in waiting:
                    self._refuse(envelope, "journal", result.error, True, msg_id)

    def _request(self, frames: list[bytes], head: zmq.Frame | None) -> None:
        try:
            delimiter = frames.index(b"", 1)
        except ValueError:
            self._refuse(frames[:1], NOT_A_REQUEST, "no empty frame before the topic", False)
            return
        envelope, parts = frames[:delimiter], frames[delimiter + 1 :]
        size = sum(map(len, envelope))
        if size > ENVELOPE_BYTES or len(envelope) > ENVELOPE_FRAMES:
            text = f"an envelope of {size} bytes in {len(envelope)} frames"
            # Without it: it would wait with the reply, for as long as that is not read.
            self._refuse(envelope[:1], NOT_A_REQUEST, text, False)
            return
        if len(parts) != 2:
            text = f"{len(parts)} frames follow the empty one, not a topic and a body"
            self._refuse(envelope, NOT_A_REQUEST, text, False)
            return
        done = partial(self._decided, envelope)
        if self._policing is not None:
            done = partial(self._judge, self._policing, envelope, address_of(head))
        checked = self._desk.check(parts, lambda: (SUBMIT, envelope[0]), done, SUBMIT)
        if checked is not None:
            done(checked)

    def _judge(
        self, policing: Policing, envelope: list[bytes], address: str | None, checked: Checked
    ) -> None:
        judged, why = policing.judged(checked, address, SUBMIT)
        if judged.cause == NOT_ALLOWED:
            self._refuse(envelope, NOT_ALLOWED, why, False, topic=checked.topic)
        else:
            self._decided(envelope, judged)

    def _decided(self, envelope: list[bytes], checked: Checked) -> None:
        if checked.frames is None:
            self._refuse(envelope, checked.cause or "", checked.cause or "", False)
        elif checked.cause == UNSEEN:
            self._refuse(envelope, BUSY, BUSY, True, topic=checked.topic)
        elif checked.cause is not None:
            # Legacy senders have it repaired: nobody would tell them. These are told.
            text = f"{NOT_COMPLETE} (inbound would repair it: {checked.cause})"
            self._refuse(envelope, NOT_COMPLETE, text, False, topic=checked.topic)
        else:
            self._submit(envelope, checked)

    def _submit(self, envelope: list[bytes], checked: Checked) -> None:
        msg_id, frames = checked.msg_id, checked.frames or []
        if len(msg_id) > LONGEST_ID:
            text = f"{NOT_COMPLETE} (a msg_id of more than {LONGEST_ID} characters)"
            self._refuse(envelope, NOT_COMPLETE, text, False, topic=checked.topic)
            return
        if not msg_id:  # it would be the same message as all others that have none
            self._refuse(envelope, NO_MSG_ID, NO_MSG_ID, False, topic=checked.topic)
            return
        error = self._recorder.refusal
        if error is not None:
            self._refuse(envelope, "journal", error, True, msg_id, checked.topic)
            return
        pending = self._pending.get(msg_id)
        if pending is not None:
            if pending.row.body != frames[1]:
                args = (OTHER_MESSAGE, OTHER_MESSAGE, False, msg_id, checked.topic)
                self._refuse(envelope, *args)
                return
            if len(pending.waiting) < WAITERS:
                pending.waiting.append(envelope)
            self.counts.duplicate += 1
            return
        row = Row(self._recorder.now(), checked.topic, msg_id, frames[1], True)
        self._pending[msg_id] = _Pending(row, frames, [envelope])
        self._pending_bytes += len(row.body)
        self._recorder.ask(msg_id, row.body)

    def _found(self, msg_id: str, seq: int | None) -> None:
        pending = self._pending[msg_id]
        if seq is not None:
            self.counts.duplicate += 1
            self._forget(msg_id)
            self._acknowledge(pending.waiting, msg_id, seq)
            return
        self._emit([pending.frames])
        self.on_emitted()
        self.counts.accepted += 1
        self._recorder.add_submitted(pending.row)

    def _refuse_pending(self, msg_id: str, cause: str, error: str, retry: bool) -> None:
        for envelope in self._forget(msg_id).waiting:
            self._refuse(envelope, cause, error, retry, msg_id)

    def _forget(self, msg_id: str) -> _Pending:
        pending = self._pending.pop(msg_id)
        self._pending_bytes -= len(pending.row.body)
        return pending

    def _acknowledge(self, waiting: list[list[bytes]], msg_id: str, seq: int) -> None:
        # The time: so that a sender can tell whether its clock and the relay's agree.
        answer = {"ok": True, "seq": seq, "msg_id": msg_id, "time": round(time.time(), 3)}
        reply = json.dumps(answer).encode()
        for envelope in waiting:
            self._reply(envelope, reply)

    def _refuse(
        self,
        envelope: list[bytes],
        cause: str,
        error: str,
        retry: bool,
        msg_id: str | None = None,
        topic: str = "",
    ) -> None:
        self.counts.refused[cause] += 1
        # Of what is not allowed the line that names its sender is policing's.
        if cause != NOT_ALLOWED and self._warnings.allows(cause):
            more = "; more of these are only counted" * self._warnings.is_last(cause)
            logger.warning("refused: %s, topic %.200a%s", error, topic, more)
        answer = {"ok": False, "error": error, "retry": retry}
        if msg_id is not None:
            answer["msg_id"] = msg_id
        self._reply(envelope, json.dumps(answer).encode())

    def _reply(self, envelope: list[bytes], reply: bytes) -> None:
        try:
            self.socket.send_multipart([*envelope, b"", reply], zmq.NOBLOCK)
        except zmq.ZMQError as error:  # it does not read, or has gone: it will submit again
            logger.debug("submit: a reply was not sent: %s", error)

    def close(self) -> None:
        """Close; what is still pending is not acknowledged, and its sender will submit it again."""
        self.socket.close(linger=500)
