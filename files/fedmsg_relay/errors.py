"""What can go wrong that an operator can put right: each error is one line, said by `main()`."""

from __future__ import annotations


class FedmsgRelayError(Exception):
    """Base of every error this package raises on purpose. `str()` is one line for an operator."""


class ConfigError(FedmsgRelayError):
    """The global config cannot be used: the text says which file, key or value is wrong."""


class StartError(FedmsgRelayError):
    """The relay cannot start here: a port is taken, a log path is not writable, ..."""


class PublishError(FedmsgRelayError):
    """A message was neither taken by a relay nor spooled. It will not reach the bus."""


class MessageRefused(PublishError):
    """No relay would let this message through, now or later. Others may go through."""


class MessageTooLarge(MessageRefused):
    """It has more bytes than relays let through."""


class SpoolError(FedmsgRelayError):
    """The spool cannot take a message, or cannot be drained: the text says why."""


class SigningError(FedmsgRelayError):
    """A message cannot be signed: no certificate for this host, an unreadable key, no library."""
