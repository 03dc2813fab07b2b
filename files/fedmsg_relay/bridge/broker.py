"""How to connect to a broker with pika, and why a connection has failed, in one line."""

from __future__ import annotations

import re
import ssl
from typing import Any

import pika
from pika import exceptions

from .. import __version__
from .kinds import (
    CERTIFICATE,
    CREDENTIALS,
    EXCHANGE,
    LOST,
    OTHER,
    PERMISSION,
    QUEUE,
    STOPPED,
    UNREACHABLE,
)
from .settings import Broker, Settings

# Seconds: after this without a sign of life the broker is taken to be gone, and an attempt to fail.
HEARTBEAT = 20
ATTEMPT = 10

CLOSED_BY_BROKER = (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker)

# Replies of AMQP 0-9-1 to what one message has in it: content too large, a precondition that does
# not hold (RabbitMQ: the largest message), a frame that is too large or not understood.
OF_ONE_MESSAGE = (311, 406, 501, 502, 505)


def parameters(broker: Broker, settings: Settings, what: str) -> pika.ConnectionParameters:
    """How to connect to a node."""
    credentials: Any = pika.credentials.ExternalCredentials()
    if broker.user is not None:
        credentials = pika.PlainCredentials(broker.user, broker.password or "")
    options = None
    if settings.tls is not None:
        options = pika.SSLOptions(settings.tls, broker.host)
    return pika.ConnectionParameters(
        host=broker.host,
        port=broker.port,
        virtual_host=broker.vhost,
        credentials=credentials,
        heartbeat=HEARTBEAT,
        blocked_connection_timeout=None,
        socket_timeout=ATTEMPT,
        stack_timeout=ATTEMPT,
        connection_attempts=1,
        ssl_options=options,
        client_properties={
            "app": "fedmsg-amqp-bridge",
            "connection_name": f"fedmsg-amqp-bridge {what}",
            "version": __version__,
        },
    )


def why(error: BaseException | None, where: object) -> tuple[str, str]:
    """Its kind, and what is wrong, where, in one line."""
    for each in _causes(error):
        told = _told(each, where)
        if told is not None:
            return told
    return OTHER, f"{where}: {_words(error)}"


def is_of_one_message(error: BaseException | None) -> bool:
    """Whether the broker has closed a channel or connection for what a message has in it."""
    for each in _causes(error):
        if isinstance(each, CLOSED_BY_BROKER):
            if each.reply_code in OF_ONE_MESSAGE:
                return True
            # Who may publish here, and not to this topic (RabbitMQ's topic authorisation).
            return each.reply_code == 403 and "topic" in str(each.reply_text).split("exchange")[0]
    return False


def _told(error: BaseException, where: object) -> tuple[str, str] | None:
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", None) or error.reason or str(error)
        return CERTIFICATE, f"{where}: TLS: {str(reason).lower().replace('_', ' ')}"
    if isinstance(error, exceptions.ProbableAuthenticationError):
        return CREDENTIALS, f"{where} refuses the user or the password"
    if isinstance(error, exceptions.ProbableAccessDeniedError):
        return CREDENTIALS, f"{where} refuses this user its virtual host"
    if isinstance(error, exceptions.AuthenticationError):
        return CREDENTIALS, f"{where} has no way to authenticate that this bridge knows"
    if isinstance(error, exceptions.ConnectionClosedByBroker):
        if error.reply_code == 403:
            return CREDENTIALS, f"{where} refuses the user or the password"
        if error.reply_code == 530:
            return CREDENTIALS, f"{where} refuses this user its virtual host: {error.reply_text}"
        if error.reply_code == 320:
            return STOPPED, f"{where} was stopped: {error.reply_text}"
        return OTHER, f"{where} closed the connection: {error.reply_code} {error.reply_text}"
    if isinstance(error, exceptions.ChannelClosedByBroker):
        kind = {403: PERMISSION, 404: EXCHANGE}.get(error.reply_code, OTHER)
        if error.reply_code == 404 and "queue" in str(error.reply_text):
            kind = QUEUE
        return kind, f"{where} refuses: {error.reply_code} {error.reply_text}"
    if isinstance(error, exceptions.AMQPHeartbeatTimeout):
        return LOST, f"{where} gives no sign of life: it hangs, or the network is cut"
    if isinstance(error, exceptions.AMQPError) and "SSLError(" in str(error):
        # With TLS 1.3 the broker refuses our certificate only after the handshake.
        found = re.search(r"\[SSL: (\w+)\]", str(error))
        reason = found[1].lower().replace("_", " ") if found else _words(error)
        return CERTIFICATE, f"{where}: TLS: {reason}"
    if isinstance(error, (exceptions.StreamLostError, exceptions.IncompatibleProtocolError)):
        return LOST, f"{where}: the connection was lost: {_words(error)}"
    if isinstance(error, OSError):
        return UNREACHABLE, f"{where} cannot be reached: {error.strerror or _words(error)}"
    if isinstance(error, exceptions.AMQPConnectorException):
        return UNREACHABLE, f"{where} cannot be reached: {_words(error)}"
    return None


def _causes(error: BaseException | None) -> list[BaseException]:
    """An error and what it was made of, the innermost first: pika wraps several times."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < 50:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and each not in found:
            found.append(each)
            waiting += [getattr(each, "exception", None), each.__cause__]
            waiting += list(getattr(each, "exceptions", ()))
            waiting += [arg for arg in each.args if isinstance(arg, BaseException)]
    return found[::-1]


def _words(error: BaseException | None) -> str:
    if error is None:
        return "no reason was given"
    return " ".join((str(error) or type(error).__name__).split())[:300]
