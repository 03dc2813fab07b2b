"""Who may publish what: `relay_policy`, patterns of topics with networks that may publish these.

A pattern is a topic, or the beginning of topics with one `*` at its end. Of several patterns that
fit a topic the longest decides, alone. A topic that no pattern fits is everybody's; the pattern
`*` fits all. A sender whose address is not known is in no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..config import Config
from ..errors import ConfigError
from . import networks
from .networks import REMEMBERED, Network

KEY, MODE_KEY = "relay_policy", "relay_policy_mode"

# What becomes of a message whose sender may not publish it.
OFF, MARK, REFUSE = "off", "mark", "refuse"
MODES = (OFF, MARK, REFUSE)

# Characters of a pattern: fewer than are known of any topic, see wire.LEAST_KNOWN.
LONGEST_PATTERN = 1000

# What other kinds of patterns are written with: here they would name topics that nobody has.
_SPECIAL = "?[]"


class Policy:
    """Patterns of topics, each with the networks that may publish them. None: nobody may."""

    def __init__(self, rules: Mapping[str, Sequence[Network]]) -> None:
        self._topics: dict[str, _Rule] = {}
        self._beginnings: dict[str, _Rule] = {}
        for pattern, members in rules.items():
            beginning, star, _ = pattern.partition("*")
            (self._beginnings if star else self._topics)[beginning] = _Rule(pattern, members)
        # The longest first. Patterns may be many, and their lengths are few.
        self._lengths = sorted({len(each) for each in self._beginnings}, reverse=True)

    def against(self, address: str | None, topic: str) -> str | None:
        """The pattern by which this address may not publish this topic; None if it may."""
        rule = self._topics.get(topic) or self._by_beginning(topic)
        return None if rule is None or rule.allows(address) else rule.pattern

    def _by_beginning(self, topic: str) -> _Rule | None:
        for length in self._lengths:
            rule = self._beginnings.get(topic[:length])
            if rule is not None:
                return rule
        return None


class _Rule:
    def __init__(self, pattern: str, members: Sequence[Network]) -> None:
        self.pattern = pattern
        self._networks = members
        self._known: dict[str | None, bool] = {None: False}

    def allows(self, address: str | None) -> bool:
        found = self._known.get(address)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known = {None: False}
            found = self._known[address] = networks.has(self._networks, address or "")
        return found


def configured(config: Config) -> Policy | None:
    """What `relay_policy` says, if `relay_policy_mode` is not `off`. Raises ConfigError."""
    rules = config[KEY]
    policy = Policy({pattern: _networks(pattern, texts) for pattern, texts in rules.items()})
    if config[MODE_KEY] == OFF:
        return None
    if not rules:
        raise ConfigError(
            f"config key {MODE_KEY!r} is {config[MODE_KEY]!r}, and {KEY!r} names no topic:"
            f" name some, or set it to {OFF!r}"
        )
    return policy


def _networks(pattern: str, texts: Sequence[str]) -> list[Network]:
    where = f"config key {KEY}[{pattern!r}]"
    beginning, _, rest = pattern.partition("*")
    if not pattern or rest or any(each in beginning for each in _SPECIAL):
        raise ConfigError(
            f"{where}: a pattern is a topic, or the beginning of topics with one * at its end, such"
            " as org.fedoraproject.prod.git.*"
        )
    if not pattern.isprintable() or " " in pattern or len(pattern) > LONGEST_PATTERN:
        raise ConfigError(
            f"{where}: a pattern has no blanks, only what can be printed, and at most"
            f" {LONGEST_PATTERN} characters"
        )
    return [networks.parse(text, where) for text in texts]
