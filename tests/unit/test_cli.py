"""A command line that is read without argparse says what it says to argparse."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from fedmsg_relay import cli, logger
from hypothesis import example, given
from hypothesis import strategies as st

OPTIONS = {**cli.COMMON, **logger._OPTIONS, **logger._SPOOL_OPTIONS}
PARSER = logger.parser()

names = st.sampled_from([*OPTIONS, "--help", "--mess", "--no", "-h", "--nonsense", "--"])
values = st.one_of(
    st.sampled_from(["", "5", "0.5", "-5", "1e3", " 7", "nan", "x y", "-x y", "-", "--topic"]),
    st.text(max_size=5),
)
words = st.one_of(names, values, st.tuples(names, values).map("=".join))


def by_argparse(line: list[str]) -> dict[str, Any] | None:
    """What argparse makes of it; None: it ends the program."""
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            return vars(PARSER.parse_args(line))
    except SystemExit:
        return None


@pytest.mark.parametrize("option", sorted(set(cli.COMMON) - {"--config-filename"}))
@pytest.mark.parametrize("form", ["{} 5", "{}=5", "{}"])
def test_the_daemon_refuses_a_common_option_by_name_and_says_what_to_do(
    option: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.daemon_parser("fedmsg-relay").parse_args(form.format(option).split())
    assert ended.value.code == 2
    assert f"fedmsg-relay has no {option}: " in capsys.readouterr().err


@given(st.lists(words, max_size=6))
@example(["--message", "a b", "--topic=x", "--timeout", "5", "--no-spool", "--verbose"])
@example(["--topic=a=b", "--topic=", "--message", ""])
def test_what_is_read_is_what_argparse_would_find(line: list[str]) -> None:
    found = logger._plain(line)
    if found is not None:
        # As text, in which one NaN is like the other.
        assert repr(sorted(found.items())) == repr(sorted((by_argparse(line) or {}).items()))


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["--message", "Hello, world."],
        ["--message=Hello", "--topic", "a.b", "--modname=git", "--json-input"],
        ["--config-filename", "/etc/x", "--timeout", "2.5", "--linger", "7", "--no-spool"],
        ["--drain", "--verbose"],
    ],
)
def test_what_scripts_write_needs_no_argparse(line: list[str]) -> None:
    assert logger._plain(line) == by_argparse(line)


@pytest.mark.parametrize(
    "line",
    [
        ["--help"],
        ["--version"],
        ["--mess", "abbreviated"],
        ["--message"],
        ["--message", "-5"],
        ["--verbose=yes"],
        ["--timeout", "soon"],
        ["word"],
        ["--drain", "--no-spool"],
    ],
)
def test_what_is_left_to_argparse(line: list[str]) -> None:
    assert logger._plain(line) is None
