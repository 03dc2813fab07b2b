"""What can go wrong that an operator can put right: each error is one line, said by `main()`."""

from __future__ import annotations


class FedmsgRelayError(Exception):
    """Base of every error this package raises on purpose. `str()` is one line for an operator."""


class ConfigError(FedmsgRelayError):
    """The global config cannot be used: the text says which file, key or value is wrong."""


class StartError(FedmsgRelayError):
    """The relay cannot start here: a port is taken, a log path is not writable, ..."""


class PublishError(FedmsgRelayError):
    """A message could not be handed to any relay. It is not on the bus."""


class MessageTooLarge(PublishError):
    """No relay would let this message through, now or later. Others may go through."""


class SigningError(FedmsgRelayError):
    """A message cannot be signed: no certificate for this host, an unreadable key, no library."""
