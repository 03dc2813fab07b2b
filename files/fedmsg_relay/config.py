"""Load the global config, by fedmsg's rules.

A config file is Python that is executed and leaves a dict named `config`. Files are taken in this
order, later ones win, dicts merge recursively and everything else replaces (fedmsg 1.1.7,
`fedmsg.config.load_config`):

    /etc/fedmsg.d/*.py  ~/.fedmsg.d/*.py  ./fedmsg.d/*.py  $VIRTUAL_ENV/etc/fedmsg.d/*.py
    /etc/fedmsg-config.py  ~/.fedmsg-config.py  ./fedmsg-config.py
"""

from __future__ import annotations

import os
import sys

from .errors import ConfigError

# As in all that fedmsg-logger imports: `typing` takes it longer than reading the config does.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeAlias

Config: TypeAlias = "dict[str, Any]"

ETC_DIRECTORY = "/etc/fedmsg.d"
ETC_FILE = "/etc/fedmsg-config.py"
# The type of a symbolic link in a mode (stat.S_IFLNK): its own permissions mean nothing.

# Milliseconds for zmq_*, bytes for *_bytes, and seconds for all other times.
DEFAULTS: Config = {
    "topic_prefix": "org.fedoraproject",
    "environment": "dev",
    "relay_inbound": "tcp://127.0.0.1:2003",
    "io_threads": 1,
    "post_init_sleep": 0.5,
    "timeout": 2,
    "high_water_mark": 0,
    "zmq_linger": 1000,
    "zmq_tcp_keepalive": 1,
    "zmq_tcp_keepalive_cnt": 3,
    "zmq_tcp_keepalive_idle": 60,
    "zmq_tcp_keepalive_intvl": 5,
    "zmq_reconnect_ivl": 100,
    "zmq_reconnect_ivl_max": 1000,
    "relay_max_message_bytes": 16 * 1024 * 1024,
    "relay_log": None,
    "relay_submit": [],
    "relay_allow": [],  # networks; everybody if there are none
    "relay_policy": {},  # patterns of topics, with the networks that may publish these
    "relay_policy_mode": "off",
    "relay_journal": None,
    "relay_journal_max_age": 7 * 24 * 3600,
    "relay_journal_max_bytes": 1 << 30,
    "relay_http": [],
    "relay_sop": None,  # where the SOP is, for the links of the status page
    "relay_hold_max": None,  # what the reconnect intervals ask for, 2 or more
    "publisher_spool": None,
    "publisher_spool_max_bytes": 1 << 30,
}
DEFAULT_ENDPOINTS = {"relay_outbound": ["tcp://127.0.0.1:4001"]}

# Upstream's own default: every command's lines go to standard output at INFO.
DEFAULT_LOGGING: Config = {
    "version": 1,
    "formatters": {
        "bare": {
            "datefmt": "%Y-%m-%d %H:%M:%S",
            "format": "[%(asctime)s][%(name)10s %(levelname)7s] %(message)s",
        }
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "bare",
            "level": "INFO",
            "stream": "ext://sys.stdout",
        }
    },
    "loggers": {
        "fedmsg": {"level": "INFO", "propagate": False, "handlers": ["console"]},
        "moksha": {"level": "INFO", "propagate": False, "handlers": ["console"]},
    },
}

_NUMBERS = {
    "io_threads": 1,
    "high_water_mark": 0,
    "post_init_sleep": 0,
    "timeout": 0,
    "zmq_linger": -1,
    "zmq_tcp_keepalive": -1,
    "zmq_tcp_keepalive_cnt": -1,
    "zmq_tcp_keepalive_idle": -1,
    "zmq_tcp_keepalive_intvl": -1,
    "zmq_reconnect_ivl": -1,
    "zmq_reconnect_ivl_max": 0,
    "relay_max_message_bytes": 1,
    "relay_journal_max_age": 1,
    "relay_journal_max_bytes": 1 << 20,
    "relay_hold_max": 0,
    "publisher_spool_max_bytes": 0,
}
_LARGEST = (1 << 63) - 1  # of all others: what SQLite and a file's size can be
# Less where libzmq and sockets take a C int, of milliseconds.
_MOST = {
    **{key: (1 << 31) - 1 for key in _NUMBERS if key.startswith("zmq_")},
    "io_threads": (1 << 31) - 1,
    "high_water_mark": (1 << 31) - 1,
    "timeout": ((1 << 31) - 1) // 1000,
}
_FLOATS = ("post_init_sleep", "timeout", "relay_hold_max")
_ADDRESS_LISTS = ("relay_inbound", "relay_submit", "relay_http", "relay_allow")
_POLICY_MODES = ("off", "mark", "refuse")
_PATHS = ("relay_log", "relay_journal", "publisher_spool")


def load(path: str | None = None, *, system: bool = False, further: str | None = None) -> Config:
    """The merged and validated config.

    `path` names one file, or a directory whose `*.py` are loaded in sorted order, and nothing else
    is read then; without it a command reads what the environment variable FEDMSG_CONFIG names.
    `system` is for daemons: only what lies in /etc is read, and a file that cannot be read is an
    error rather than a warning. `further` is a directory of the program's own, whose `*.py` come
    last; not with `path`, and it need not be there. Root never reads another user's `./` or `~`
    either. Nobody reads what another user may write: these files are executed.

    Raises ConfigError, which names the file and the line, or the key.
    """
    etc_only = system or os.geteuid() == 0
    if path is None and not system:
        path = os.environ.get("FEDMSG_CONFIG")
    merged: Config = {}
    filenames = [*(_given(path) if path else _searched(etc_only))]
    if further is not None and not path:
        filenames += _python_files(further)
    for filename in filenames:
        _merge(merged, _execute(filename, must_be_readable=system or path is not None))
    return complete(merged)


def complete(merged: Config) -> Config:
    """`merged` with defaults filled in, lists where a string was allowed, and every value checked.

    Raises ConfigError, which names the key.
    """
    config = {**DEFAULTS, **merged}
    config.setdefault("logging", DEFAULT_LOGGING)
    endpoints = config.setdefault("endpoints", DEFAULT_ENDPOINTS)
    if not isinstance(endpoints, dict):
        raise ConfigError(f"config key 'endpoints' must be a dict, not {endpoints!r}")
    config["endpoints"] = {
        name: as_list(f"endpoints[{name!r}]", value) for name, value in endpoints.items()
    }
    for key in _ADDRESS_LISTS:
        config[key] = as_list(key, config[key])
    config["relay_policy"] = _policy(config["relay_policy"])
    if config["relay_policy_mode"] not in _POLICY_MODES:
        raise ConfigError(
            "config key 'relay_policy_mode' must be 'off', 'mark' or 'refuse', not"
            f" {config['relay_policy_mode']!r}"
        )
    for key, least in _NUMBERS.items():
        if config[key] is not None or DEFAULTS[key] is not None:
            config[key] = _number(key, config[key], least)
    for key in ("topic_prefix", "environment"):
        if not isinstance(config[key], str) or not config[key]:
            raise ConfigError(f"config key {key!r} must be a string, not {config[key]!r}")
    for key in _PATHS:
        if config[key] is not None and not (isinstance(config[key], str) and config[key]):
            raise ConfigError(f"config key {key!r} must be a path, not {config[key]!r}")
    _check_link("relay_sop", config["relay_sop"])
    if not isinstance(config["logging"], dict):
        raise ConfigError(f"config key 'logging' must be a dict, not {config['logging']!r}")
    return config


def _check_link(key: str, value: object) -> None:
    """A page in a browser leads there: nothing but an address of the web. Raises ConfigError."""
    if value is None:
        return
    text = value if isinstance(value, str) else ""
    if not text.startswith(("https://", "http://")) or " " in text or not text.isprintable():
        raise ConfigError(
            f"config key {key} must be a link such as https://HOST/sop.html, not {value!r}"
        )


def _policy(value: object) -> dict[str, list[str]]:
    """Patterns of topics, each with a list of networks. Raises ConfigError."""
    if not isinstance(value, dict) or not all(isinstance(pattern, str) for pattern in value):
        raise ConfigError(
            "config key 'relay_policy' must be a dict of patterns of topics, each with a list of"
            f" networks, not {value!r}"
        )
    return {pattern: as_list(f"relay_policy[{pattern!r}]", value[pattern]) for pattern in value}


def as_list(key: str, value: object) -> list[str]:
    """A list of strings from a string or a list, as upstream takes either. Raises ConfigError."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple, set)) or not all(isinstance(v, str) for v in values):
        raise ConfigError(f"config key {key} must be an address or a list of them, not {value!r}")
    return list(values)


def _given(path: str) -> list[str]:
    if os.path.isdir(path):
        found = _python_files(path)
        if not found:
            raise ConfigError(f"{path}: no *.py file in this directory")
        return found
    if not os.path.isfile(path):
        raise ConfigError(f"{path}: no such file or directory")
    return [path]


def _searched(etc_only: bool) -> Iterable[str]:
    yield from _python_files(ETC_DIRECTORY)
    if not etc_only:
        for base, directory in _own_places():
            yield from _own_python_files(os.path.join(base, directory))
        if "VIRTUAL_ENV" in os.environ:
            yield from _own_python_files(os.path.join(os.environ["VIRTUAL_ENV"], "etc/fedmsg.d"))
    yield from filter(os.path.isfile, [ETC_FILE])
    if not etc_only:
        for base, directory in _own_places():
            path = os.path.join(base, directory[: -len(".d")] + "-config.py")
            yield from filter(_is_own, filter(os.path.isfile, [path]))


def _own_places() -> Iterable[tuple[str, str]]:
    """The user's own directories, and what theirs is called: of the home, and the one we are in."""
    yield os.path.expanduser("~"), ".fedmsg.d"
    try:
        yield os.getcwd(), "fedmsg.d"
    except OSError:  # it has been removed, or may not be entered
        return


def _own_python_files(directory: str) -> list[str]:
    """As `_python_files`, of a place of the user's: what cannot be read there is passed over."""
    try:
        found = _python_files(directory)
    except ConfigError:
        return []  # as upstream does: another user's home, a service's, a directory of root's
    return [path for path in found if _is_own(path)] if found and _is_own(directory) else []


def _is_own(path: str) -> bool:
    """Whether nobody but this user and root can have written it; else says so."""
    from . import trust

    try:
        reason = trust.why_not(os.path.abspath(path))
    except OSError:
        return False
    if reason is not None:
        print(f"warning: {path} is passed over: {reason}", file=sys.stderr)
    return reason is None


def _python_files(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}") from error
    paths = (os.path.join(directory, name) for name in sorted(names) if name.endswith(".py"))
    return [path for path in paths if os.path.isfile(path)]


def _execute(filename: str, must_be_readable: bool) -> Config:
    try:
        with open(filename, "rb") as stream:
            source = stream.read()
    except OSError as error:
        if must_be_readable:
            raise ConfigError(f"{filename}: {error.strerror}") from error
        # Upstream goes on too: a key file meant for one service is no business of this user's.
        print(f"warning: {filename}: {error.strerror}", file=sys.stderr)
        return {}
    variables: Config = {}
    try:
        exec(compile(source, filename, "exec"), variables)
    except SyntaxError as error:
        raise ConfigError(f"{filename}:{error.lineno or 1}: {error.msg}") from error
    except ValueError as error:  # NUL bytes in the source, before Python 3.12
        raise ConfigError(f"{filename}:1: {error}") from error
    except (Exception, SystemExit) as error:
        line = _line_of(error, filename)
        raise ConfigError(f"{filename}:{line}: {type(error).__name__}: {error}") from error
    config = variables.get("config")
    if not isinstance(config, dict):
        raise ConfigError(f"{filename}: must define a dict named 'config'")
    return config


def _line_of(error: BaseException, filename: str) -> int:
    """The last line of `filename` that was being executed when `error` was raised."""
    line, frame = 1, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == filename:
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def _merge(into: Config, new: Config) -> None:
    for key, value in new.items():
        if isinstance(value, dict):
            # Never share a dict with the file it came from: the next file would change it there.
            old = into.get(key)
            copy: Config = dict(old) if isinstance(old, dict) else {}
            _merge(copy, value)
            into[key] = copy
        else:
            into[key] = value


def _number(key: str, value: object, least: int) -> float:
    wanted = "a number" if key in _FLOATS else "a whole number"
    if isinstance(value, str):
        from contextlib import suppress

        with suppress(ValueError):  # upstream's validators take "5" for 5, too
            value = float(value) if key in _FLOATS else int(value)
    right_type = (int, float) if key in _FLOATS else int
    if isinstance(value, bool) or not isinstance(value, right_type) or not value >= least:
        raise ConfigError(f"config key {key!r} must be {wanted} of at least {least}, not {value!r}")
    most = _MOST.get(key, _LARGEST)
    if value > most:
        raise ConfigError(f"config key {key!r} must be {wanted} of at most {most}, not {value!r}")
    return value
