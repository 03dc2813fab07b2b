"""Reading a JSON text a little at a time comes to the same as reading it in one go."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fedmsg_relay.checks import wire
from fedmsg_relay.checks.scan import NotJSON, Scanned, Scanner, TooDeep
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

KEYS = ("topic", "msg_id", "timestamp")


def scan(text: bytes, depth: int = 100) -> Scanned:
    steps = Scanner(text, KEYS, depth).run()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
    max_leaves=40,
)
# Valid texts, with and without blanks, and the same with something broken in them.
texts = st.builds(
    lambda value, indent, ascii: json.dumps(value, indent=indent, ensure_ascii=ascii).encode(
        "utf-8", "surrogatepass"
    ),
    values,
    st.sampled_from([None, 1]),
    st.booleans(),
)
broken = st.builds(
    lambda text, at, more: text[: at % (len(text) + 1)] + more + text[at % (len(text) + 1) :],
    texts,
    st.integers(0, 1000),
    st.sampled_from([b",", b"]", b"{", b'"', b"\\", b"1", b"-", b" ", b"\0", b":", b"NaN"]),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(texts | broken)
@example(b"[1,]")
@example(b'{"a":1,}')
@example(b"[[[[1,]]]]")
@example(b"[01]")
@example(b"[" + b"1" * 4300 + b"]")
@example(b"[" + b"1" * 4301 + b"]")
@example(b"[NaN,-Infinity,[NaN]]")
def test_it_agrees_with_json_about_what_is_json(text: bytes) -> None:
    try:
        parsed: Any = json.loads(text.decode())
    except ValueError:
        with pytest.raises((NotJSON, UnicodeDecodeError)):
            text.decode()
            scan(text)
        return
    found = scan(text)
    assert found.is_object == isinstance(parsed, dict)
    if found.is_object:
        last = {key: json.loads(text[slice(*spans[-1])]) for key, spans in found.members.items()}
        expected = {key: parsed[key] for key in KEYS if key in parsed}
        assert json.dumps(last, sort_keys=True) == json.dumps(expected, sort_keys=True)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 10, 100])
def test_it_measures_depth(depth: int) -> None:
    for unit in (b"[" * depth + b"]" * depth, b'{"k":' * depth + b"1" + b"}" * depth):
        scan(unit, depth)
        with pytest.raises(TooDeep):
            scan(unit, depth - 1) if depth > 1 else scan(b"[" + unit + b"]", depth)


UNITS = [b"[],", b"{},", b"1,", b'"",', b"0.5e1,", b'{"":{"":0}},', b'[ [ ] ] , ', b"NaN,",
         b"[" * 60 + b"]" * 60 + b",", b'"\\u00e4",', b'"' + b"x" * 3000 + b'",', b" "]  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=30)
@given(st.lists(st.sampled_from(UNITS), min_size=1, max_size=4))
def test_no_step_goes_far(units: list[bytes]) -> None:
    """Whatever a large message is made of: by the bytes that one step covers, not by a clock."""
    text = b"[" + b"".join(units) * (200_000 // len(b"".join(units))) + b"1]"
    scanner = Scanner(text, KEYS, 100)
    before = 0
    for _ in scanner.run():
        assert scanner.position - before <= 3 * (1 << 15)
        before = scanner.position


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)
@given(values)
def test_a_large_message_becomes_what_a_small_one_does(value: Any) -> None:
    checker = wire.Checker(1 << 20)
    body = json.dumps({"topic": "a", "timestamp": 1, "msg_id": "x", "msg": value}).encode()
    steps = checker.check_slowly([b"t", body])
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert end.value == checker.check([b"t", body])
            break


COMMIT = {
    "name": "Jane",
    "message": "m" * 200,
    "stats": {f"f{n}": {"additions": 1, "deletions": 2} for n in range(8)},
}


@pytest.mark.parametrize(
    ("msg", "cause"),
    [
        ([COMMIT] * (5 << 11), None),
        ("x" * (12 << 20), None),
        ([1.5] * (1 << 20), None),
        (["a"] * 10, None),
        ([{"a": [[[[[]]]]]}] * (1 << 18), wire.UNSEEN),
    ],
    ids=["commits", "text", "numbers", "short", "brackets"],
)
def test_in_a_hurry_only_what_takes_long_for_its_size_is_wrapped_unseen(
    msg: object, cause: str | None
) -> None:
    body = json.dumps({"topic": "t", "timestamp": 1, "msg_id": "x", "msg": msg}).encode()
    steps = wire.Checker(16 << 20).check_slowly([b"t", body], lambda: True)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        assert end.value.cause == cause
        assert cause is not None or end.value.frames == [b"t", body]
