"""Kinds of trouble with a broker: what metrics and alerts call them."""

from __future__ import annotations

UNREACHABLE = "unreachable"
CREDENTIALS = "credentials"
CERTIFICATE = "certificate"
LOST = "lost"
STOPPED = "stopped"
BLOCKED = "blocked"
EXCHANGE = "exchange"
PERMISSION = "permission"
QUEUE = "queue"
UNCONFIRMED = "unconfirmed"
NACKED = "nacked"
UNROUTABLE = "unroutable"
OTHER = "other"
KINDS = (
    UNREACHABLE, CREDENTIALS, CERTIFICATE, LOST, STOPPED, BLOCKED, EXCHANGE, PERMISSION, QUEUE,
    UNCONFIRMED, NACKED, UNROUTABLE, OTHER,
)  # fmt: skip
