"""The config loader: files that are no Python, and files whose values are not what they should be.

A config file is a program, so only what runs nothing is loaded: literals, and what is no Python.
"""

from __future__ import annotations

import ast
import math
import tempfile
import warnings
from pathlib import Path

import zmq
from fedmsg_relay import config, sockets
from fedmsg_relay.errors import ConfigError

_LITERAL = (
    ast.Module, ast.Assign, ast.Expr, ast.Name, ast.Store, ast.Constant,
    ast.Dict, ast.List, ast.Tuple,
    ast.Set, ast.UnaryOp, ast.USub, ast.UAdd, ast.Load,
)  # fmt: skip
WORDS = (
    b"1e999", b"-1", b"-1e999", b"None", b"True", b"''", b"'inf'",
    b"'nan'", b"'5'", b"{}", b"[]", b"'",
    b"1 << 70", b"9" * 30, b"2147483648", b"\0", b"\xff", b"\n", b"\t",
    b"# coding: rot13\n", b"(" * 300,
    b"'timeout': ", b"'zmq_linger': ", b"'io_threads': ", b"'endpoints': ", b"'http://a b'",
)  # fmt: skip


def seeds() -> list[bytes]:
    every = {**config.DEFAULTS, "endpoints": config.DEFAULT_ENDPOINTS}
    some = {"timeout": "5", "relay_inbound": ["tcp://127.0.0.1:1"], "relay_sop": "https://a.test/"}
    one = [f"config = {{{key!r}: {value!r}}}\n" for key, value in config.DEFAULTS.items()]
    return [f"config = {each!r}\n".encode() for each in (every, some)] + [x.encode() for x in one]


def check(octets: bytes) -> None:
    if not _runs_nothing(octets):
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "config.py")
        path.write_bytes(octets)
        try:
            loaded = config.load(str(path))
        except ConfigError as error:
            assert "config" in str(error)
            return
    for key, least in config._NUMBERS.items():
        value = loaded[key]
        assert value is None or (math.isfinite(value) and value >= least), key
    for key in config._ADDRESS_LISTS:
        assert all(isinstance(each, str) for each in loaded[key])
    assert config.complete(loaded) == loaded
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    try:
        sockets.make(context, zmq.PUB, loaded).close()
    except zmq.ZMQError as error:  # out of what libzmq takes, which says so
        assert error.errno == zmq.EINVAL
    int(loaded["timeout"] * 1000)  # as milliseconds


def _runs_nothing(octets: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(octets)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return all(isinstance(node, _LITERAL) for node in ast.walk(tree))
