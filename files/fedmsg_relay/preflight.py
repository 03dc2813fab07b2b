"""Check a global config before anything runs by it: `python3 -m fedmsg_relay.preflight`.

Deployment runs this as the service user on the whole staged config, so that one that would stop the
relay, or every script of the host, never reaches /etc/fedmsg.d.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from dataclasses import dataclass

from . import config as global_config
from . import endpoints
from .checks import networks, policy
from .config import Config
from .daemon import monitoring
from .endpoints import Endpoint
from .errors import ConfigError, FedmsgRelayError, StartError
from .message import PROBE_TOPIC


@dataclass(frozen=True)
class RelayAddresses:
    """What a relay binds on this host: numeric `tcp://address:port` to the config's endpoint."""

    inbound: dict[str, Endpoint]
    outbound: dict[str, Endpoint]
    submit: dict[str, Endpoint]
    http: dict[str, Endpoint]

    @property
    def all(self) -> dict[str, Endpoint]:
        return {**self.inbound, **self.submit, **self.outbound, **self.http}

    @property
    def hosts(self) -> set[str]:
        """The numeric addresses alone, or `*`."""
        return {endpoints.split(address)[0] for address in self.all}

    def __str__(self) -> str:
        kinds = ("inbound", "submit", "outbound", "http")
        return " ".join(f"{kind} {' '.join(getattr(self, kind))}" for kind in kinds
                        if getattr(self, kind))  # fmt: skip


def check_addresses(config: Config) -> tuple[list[str], list[str]]:
    """The inbound and outbound endpoints every bus host needs, well formed. Raises ConfigError."""
    if "relay_outbound" not in config["endpoints"]:
        raise ConfigError("config key endpoints['relay_outbound'] is missing: listeners need it")
    inbound, outbound = config["relay_inbound"], config["endpoints"]["relay_outbound"]
    for key, texts in (
        ("relay_inbound", inbound),
        ("relay_submit", config["relay_submit"]),
        ("relay_http", http_endpoints(config)),
    ):
        for text in texts:
            endpoints.parse(text, key)
    for name, texts in config["endpoints"].items():
        for text in texts:
            endpoints.parse(text, f"endpoints[{name!r}]")
    networks.configured(config)
    policy.configured(config)
    both = set(inbound) & set(outbound)
    if both:
        raise ConfigError(
            f"relay_inbound and endpoints['relay_outbound'] both list {', '.join(sorted(both))}"
        )
    return inbound, outbound


def relay_addresses(config: Config) -> RelayAddresses:
    """What the relay binds here. Raises ConfigError if that is nothing, or one address twice."""
    inbound_texts, outbound_texts = check_addresses(config)
    found = RelayAddresses(
        endpoints.local_addresses(inbound_texts, "relay_inbound"),
        endpoints.local_addresses(outbound_texts, "endpoints['relay_outbound']"),
        # Either may be absent, for all relays or for this one.
        endpoints.local_addresses(config["relay_submit"], "relay_submit", may_be_none=True),
        endpoints.local_addresses(http_endpoints(config), "relay_http", may_be_none=True),
    )
    if found.submit and config["relay_journal"] is None:
        raise ConfigError(
            "relay_submit needs relay_journal, the path of a file: a message is acknowledged once"
            " it is there"
        )
    kinds = {"inbound": found.inbound, "submit": found.submit, "outbound": found.outbound,
             "http": found.http}  # fmt: skip
    ours = [endpoint for addresses in kinds.values() for endpoint in addresses.values()]
    for endpoint in ours:
        if endpoint.is_wildcard:
            twice = [other.text for other in ours if other.port == endpoint.port]
            if len(set(twice)) > 1:
                raise ConfigError(f"{' and '.join(twice)} are the same port of this machine")
    for (one, ones), (other, others) in itertools.combinations(kinds.items(), 2):
        clash = set(ones) & set(others)
        if clash:
            raise ConfigError(f"{one} and {other} are both {', '.join(sorted(clash))} here")
    return found


def http_endpoints(config: Config) -> list[str]:
    """`relay_http`, which is written `host:port` or `http://host:port`, as tcp:// endpoints."""
    texts = (text.partition("http://")[2] or text for text in config["relay_http"])
    return [text if "://" in text else f"tcp://{text}" for text in texts]


def warnings(config: Config, addresses: RelayAddresses) -> list[str]:
    """What works on this machine and fails for others, or the other way round, one line each."""
    found = _about_probes(config, addresses)
    # HTTP may well be for this machine alone.
    bus = {**addresses.inbound, **addresses.submit, **addresses.outbound}
    for address, endpoint in bus.items():
        host, _ = endpoints.split(address)
        if endpoint.host not in (host, "localhost") and endpoints.is_loopback(host):
            found.append(
                f"{endpoint.text}: {endpoint.host} is {host} here (see /etc/hosts):"
                " no other machine can reach it"
            )
    return found


def _about_probes(config: Config, addresses: RelayAddresses) -> list[str]:
    """Whether relay_policy lets a probe on this host through, as a deploy makes one."""
    policed = policy.configured(config)
    if policed is None:
        return []
    topic = f"{config['topic_prefix']}.{config['environment']}.{PROBE_TOPIC}"
    bound = (
        endpoints.split(each)[0].strip("[]") for each in (*addresses.inbound, *addresses.submit)
    )
    # The kernel connects from the address that it connects to.
    hosts = {"127.0.0.1" if host in endpoints.WILDCARDS else host for host in bound}
    patterns = ((host, policed.against(host, topic)) for host in sorted(hosts))
    return [
        f"relay_policy[{pattern!r}] does not name {host}: a probe on this host is not allowed"
        for host, pattern in patterns
        if pattern is not None
    ]


def check_relay(config: Config) -> RelayAddresses:
    """All that can be known before binding: addresses, log path, monitoring socket.

    Raises ConfigError or StartError.
    """
    addresses = relay_addresses(config)
    if config["relay_log"] is not None:
        _check_writable("relay_log", config["relay_log"])
    if config["relay_journal"] is not None:
        _check_journal(config["relay_journal"])
    endpoint, _ = monitoring.settings(config)
    if endpoint is not None and endpoint.startswith("ipc://"):
        _check_creatable("moksha.monitoring.socket", endpoint[len("ipc://") :])
    return addresses


def _check_journal(path: str) -> None:
    """Mistakes stop the start; trouble with the disk does not, and is not looked for here."""
    directory = os.path.dirname(path) or "."
    if os.path.isdir(directory) and os.statvfs(directory).f_flag & os.ST_RDONLY:
        return
    _check_creatable("relay_journal", path)
    if os.path.exists(path):
        _check_writable("relay_journal", path)


def _check_writable(key: str, path: str) -> None:
    if os.path.isdir(path):
        raise StartError(f"{key}: cannot write {path}: it is a directory")
    if not os.path.exists(path):
        _check_creatable(key, path)
    elif not os.access(path, os.W_OK):
        raise StartError(f"{key}: cannot write {path} as user {_user()}: Permission denied")


def _check_creatable(key: str, path: str) -> None:
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise StartError(f"{key}: cannot create {path}: no directory {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StartError(
            f"{key}: cannot create {path} as user {_user()}: {directory} is not writable"
        )


def _user() -> str:
    from .message import username

    return username()


def main(argv: list[str] | None = None) -> int:
    """Exit 0 and one line on standard output, or 1 and one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="fedmsg_relay.preflight", description="Check a global fedmsg config."
    )
    parser.add_argument("--config-filename", metavar="PATH", help="a file, or a directory of them")
    parser.add_argument("--relay", action="store_true", help="check what a relay needs, too")
    args = parser.parse_args(argv)
    try:
        config = global_config.load(args.config_filename, system=True)
        if args.relay:
            addresses = check_relay(config)
            for warning in warnings(config, addresses):
                print(f"warning: {warning}", file=sys.stderr)
            print(f"configuration ok: {addresses}")
        else:
            check_addresses(config)
            print(f"configuration ok: relays {' '.join(config['relay_inbound'])}")
    except FedmsgRelayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
