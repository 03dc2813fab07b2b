"""What the global config says of the bridge: keys that begin with `amqp_`, all of them checked."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from ..config import Config, as_list
from ..errors import ConfigError
from . import patterns

STATE = "/var/lib/fedmsg-amqp-bridge"
EXCHANGE = "amq.topic"
QUEUE = "fedmsg-amqp-bridge"

# Messages that are published and not yet confirmed, at most.
WINDOW = 2000

NOW, OLDEST = "now", "oldest"
COUNT, WAIT = "count", "wait"

_KNOWN = {
    "amqp_url", "amqp_password_file", "amqp_ca_certificate", "amqp_certificate", "amqp_key",
    "amqp_exchange", "amqp_out", "amqp_out_exclude", "amqp_schemas", "amqp_from", "amqp_unroutable",
    "amqp_window", "amqp_in", "amqp_in_exclude", "amqp_queue", "amqp_state", "amqp_http",
    "amqp_lag_critical",
}  # fmt: skip


@dataclass(frozen=True)
class Broker:
    """Where one node of the broker is, and as whom to connect; `user` None: by certificate."""

    host: str
    port: int
    vhost: str
    is_tls: bool
    user: str | None
    password: str | None

    def __str__(self) -> str:
        return f"{'amqps' if self.is_tls else 'amqp'}://{self.host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """The bridge's settings. `lag_critical` is in seconds; `include` empty: nothing goes out."""

    brokers: tuple[Broker, ...]
    tls: ssl.SSLContext | None
    exchange: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    schemas: tuple[tuple[str, str], ...]
    begins: str
    unroutable: str
    window: int
    bindings: tuple[str, ...]
    not_in: tuple[str, ...]
    queue: str
    state: str
    http: tuple[str, ...]
    lag_critical: float


def of(config: Config) -> Settings:
    """The settings that a config has. Raises ConfigError, which names the key."""
    unknown = sorted(key for key in config if key.startswith("amqp_") and key not in _KNOWN)
    if unknown:
        raise ConfigError(f"config key {unknown[0]!r} is none of the bridge's")
    urls = as_list("'amqp_url'", config.get("amqp_url", []))
    if not urls:
        raise ConfigError("config key 'amqp_url' is missing: it says where the broker is")
    password = _password(config)
    brokers = tuple(_broker(url, password) for url in urls)
    if len({broker.is_tls for broker in brokers}) > 1:
        raise ConfigError("config key 'amqp_url' must have amqps:// in all addresses or in none")
    tls = _tls(config) if brokers[0].is_tls else None
    for broker in brokers:
        if broker.user is None and not (tls and config.get("amqp_certificate")):
            raise ConfigError(
                f"config key 'amqp_url': {broker} has no user, and there is no amqp_certificate"
            )
    return Settings(
        brokers=brokers,
        tls=tls,
        exchange=_text(config, "amqp_exchange", EXCHANGE),
        include=_patterns(config, "amqp_out", ["#"]),
        exclude=_patterns(config, "amqp_out_exclude", []),
        schemas=_schemas(config),
        begins=_one_of(config, "amqp_from", (NOW, OLDEST)),
        unroutable=_one_of(config, "amqp_unroutable", (COUNT, WAIT)),
        window=_whole(config, "amqp_window", WINDOW),
        bindings=_patterns(config, "amqp_in", []),
        not_in=_patterns(config, "amqp_in_exclude", []),
        queue=_text(config, "amqp_queue", QUEUE),
        state=_text(config, "amqp_state", STATE),
        http=tuple(as_list("'amqp_http'", config.get("amqp_http", []))),
        lag_critical=_whole(config, "amqp_lag_critical", 300),
    )


def _broker(url: str, password: str | None) -> Broker:
    try:
        found = urlsplit(url)
        host, port = found.hostname, found.port
    except ValueError as error:
        raise ConfigError(f"config key 'amqp_url': {_shown(url)}: {error}") from error
    is_tls = found.scheme == "amqps"
    if found.scheme not in ("amqp", "amqps") or not host or found.query or found.fragment:
        raise ConfigError(
            f"config key 'amqp_url': {_shown(url)} is not like amqps://user@host:5671/vhost"
        )
    user = unquote(found.username) if found.username else None
    own = unquote(found.password) if found.password else password
    if user is not None and own is None:
        raise ConfigError(
            f"config key 'amqp_url': {_shown(url)} has a user and no password: amqp_password_file"
        )
    vhost = unquote(found.path[1:]) or "/"
    return Broker(host, port or (5671 if is_tls else 5672), vhost, is_tls, user, own)


def _shown(url: str) -> str:
    """An address without what is secret in it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _password(config: Config) -> str | None:
    path = config.get("amqp_password_file")
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().rstrip("\n")
    except (OSError, TypeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config key 'amqp_password_file': {path}: {error}") from error


def _tls(config: Config) -> ssl.SSLContext:
    authorities = config.get("amqp_ca_certificate")
    certificate, key = config.get("amqp_certificate"), config.get("amqp_key")
    if (certificate is None) != (key is None):
        raise ConfigError("config keys 'amqp_certificate' and 'amqp_key' belong together")
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (OSError, ssl.SSLError, TypeError) as error:
        raise ConfigError(f"config key 'amqp_ca_certificate': {authorities}: {error}") from error
    try:
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError, TypeError) as error:
        raise ConfigError(f"config key 'amqp_certificate': {certificate}: {error}") from error
    return context


def _patterns(config: Config, key: str, default: list[str]) -> tuple[str, ...]:
    given = as_list(f"{key!r}", config.get(key, default))
    for pattern in given:
        why = patterns.problem(pattern)
        if why is not None:
            raise ConfigError(f"config key {key!r}: {pattern!a} is no pattern: {why}")
    return tuple(given)


def _schemas(config: Config) -> tuple[tuple[str, str], ...]:
    given = config.get("amqp_schemas", {})
    if not isinstance(given, dict) or not all(
        isinstance(each, str) for pair in given.items() for each in pair
    ):
        raise ConfigError("config key 'amqp_schemas' must be a dict of patterns to schema names")
    for pattern in given:
        why = patterns.problem(pattern)
        if why is not None:
            raise ConfigError(f"config key 'amqp_schemas': {pattern!a} is no pattern: {why}")
    return tuple(given.items())


def _text(config: Config, key: str, default: str) -> str:
    value = config.get(key, default)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"config key {key!r} must be a string, not {value!r}")
    if key == "amqp_state" and not os.path.isabs(value):
        raise ConfigError(f"config key {key!r} must be a whole path, not {value!r}")
    return value


def _one_of(config: Config, key: str, values: tuple[str, ...]) -> str:
    value = config.get(key, values[0])
    if value not in values:
        raise ConfigError(f"config key {key!r} must be one of {', '.join(values)}, not {value!r}")
    return str(value)


def _whole(config: Config, key: str, default: int) -> int:
    value: Any = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"config key {key!r} must be a whole number of at least 1, not {value!r}")
    return value
