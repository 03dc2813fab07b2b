"""What the relay says of itself, for health and metrics: one JSON object a second."""

from __future__ import annotations

import os
import time
from dataclasses import asdict

from .. import __version__, log
from ..journal.recorder import Recorder, State
from .account import Counts
from .desk import Desk
from .outbound import Outbound
from .policing import Policing
from .senders import Senders
from .submit import Submit, SubmitCounts

# Addresses of listeners that are told: more is nothing that anybody reads every second.
MOST_ADDRESSES = 2000


def collect(
    counts: Counts,
    submit: Submit | None,
    recorder: Recorder | None,
    outbound: Outbound,
    desk: Desk,
    senders: Senders,
    policing: Policing | None,
) -> dict[str, object]:
    """Counts since the start, times in Unix time. Read by backlog/health.py, metrics.py."""
    submits = submit.counts if submit is not None else SubmitCounts()
    # Not asdict() for these: of a Counter it makes keys that JSON does not have.
    journal = asdict(recorder.state if recorder is not None else State(state="none"))
    journal["waiting"] = recorder.waiting if recorder is not None else 0
    journal["waiting_bytes"] = recorder.waiting_bytes if recorder is not None else 0
    trouble = log.trouble()
    return {
        "now": time.time(),
        "pid": os.getpid(),
        "version": __version__,
        "counts": vars(counts),
        "submit": {**vars(submits), "pending": len(submit) if submit is not None else 0},
        "journal": journal,
        "log": trouble._asdict() if trouble is not None else {},
        "desk": {
            "messages": desk.messages,
            "bytes": desk.waiting_bytes,
            "slowly": desk.checked_slowly,
        },
        "senders": senders.state(),
        "policy": policing.state() if policing is not None else {},
        "listeners": len(outbound.listeners),
        "listener_addresses": sorted(listener.address for listener in outbound.listeners)[
            :MOST_ADDRESSES
        ],
        "listener_protocols": outbound.listeners.protocols(),
        "listener_connections": outbound.listeners.accepted,
        "listener_changes_not_logged": outbound.arrivals.unsaid + outbound.partings.unsaid,
        "listeners_cut_off": dict(outbound.parted),
        "holds": outbound.holds,
        "held": outbound.held,
        "missed": outbound.missed,
        "slow_listeners": outbound.slow(),
    }
