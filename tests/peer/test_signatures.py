"""Signatures: fedmsg's pass our relay, ours pass fedmsg's validation, and neither is fooled."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import pytest
from fedmsg_relay.checks import signatures

from .bus import Bus
from .certificates import DAY, HOST, NOW, Authority, make_authority
from .fedmsg_crypto import Message, sign, trust, upstream_verdicts

TOPIC = "org.fedoraproject.dev.git.receive"
SIGNER = f"shell-{HOST}"


def _message(msg: Any, **keys: Any) -> Message:
    return {
        "topic": TOPIC,
        "timestamp": 1349109000,
        "msg_id": "2012-1f0d5c0e-9d3a-4ac1-8f30-6d2c8c2a3a66",
        "i": 1,
        "username": "ralph",
        "msg": msg,
        **keys,
    }


# What an encoder might write in another way than the one that signed.
VECTORS = {
    "plain": _message({"log": "Hello, world."}),
    "empty": _message({}),
    "not ASCII": _message({"name": "Raphaël Groß", "größe": "\U0001f41f \u2028 \ufeff"}),
    "lone surrogate": _message({"text": "\ud83d"}),
    "control characters": _message({"text": '\0\x1b[31m\x7f\x85\r\n\t\b\f"\\/'}),
    "floats": _message([0.1, 1.0, -0.0, 1e300, 5e-324, 1e16, 123456789.123456789, 2.5e-7]),
    "not finite": _message([float("inf"), float("-inf"), float("nan")]),
    "large numbers": _message([2**53 + 1, -(2**64), 10**100]),
    "nested": _message({"z": {"y": [{"x": [[], {}, None, True, False]}]}, "a": {"b": {"c": {}}}}),
    "keys to sort": _message({"b": 1, "a": 2, "B": 3, "é": 4, "": 5, "10": 6, "9": 7}),
    "timestamp with a fraction": _message({}, timestamp=1349109000.5),
    "further keys": _message({}, headers={"x": "y"}, seq_id=17),
    "large": _message({"lines": [f"line {number} ß" for number in range(2000)]}),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = make_authority(tmp_path_factory.mktemp("pki") / "fedmsg")
    made.issue(SIGNER)
    return made


@pytest.fixture(scope="module")
def signing_bus(
    tmp_path_factory: pytest.TempPathFactory, peer_venv: Path, authority: Authority
) -> Iterator[Bus]:
    """Our relay, and a config by which scripts sign and listeners validate."""
    keys = trust(authority, certnames={f"shell.{HOST}": SIGNER}, sign_messages=True)
    with Bus(tmp_path_factory.mktemp("signatures"), peer_venv, **keys) as bus:
        bus.relay()
        yield bus


def test_fedmsgs_signatures_verify_behind_the_relay(signing_bus: Bus, authority: Authority) -> None:
    bodies = sign(signing_bus, authority, list(VECTORS.values()), SIGNER)
    with signing_bus.listener() as listener, signing_bus.publisher() as publisher:
        publisher.open_path_to(listener)
        for body in bodies:
            publisher.send(TOPIC.encode(), body)
        received = [listener.receive() for _ in bodies]
    assert received == [[TOPIC.encode(), body] for body in bodies]
    messages = [json.loads(body) for _, body in received]
    keys = trust(authority)
    verdicts = upstream_verdicts(signing_bus, [(message, keys) for message in messages])
    assert dict(zip(VECTORS, verdicts)) == dict.fromkeys(VECTORS, "true")
    reasons = [signatures.why_invalid(message, keys) for message in messages]
    assert dict(zip(VECTORS, reasons)) == dict.fromkeys(VECTORS)


def test_we_sign_as_fedmsg_signs(signing_bus: Bus, authority: Authority) -> None:
    """RSA with PKCS#1 v1.5 is deterministic: the same message gives the same bytes."""
    signer = signatures.Signer(
        {"ssldir": str(authority.directory), "certnames": {f"shell.{HOST}": SIGNER}}
    )
    theirs = sign(signing_bus, authority, list(VECTORS.values()), SIGNER)
    for (name, message), their_body in zip(VECTORS.items(), theirs):
        ours = signer.sign(message)
        assert json.dumps(ours, sort_keys=True, separators=(",", ":")).encode() == their_body, name


def test_messages_of_our_logger_verify(signing_bus: Bus, authority: Authority) -> None:
    lines = "Hello, world.\nRaphaël Groß \U0001f41f\n\n"
    document = '{"b": [1.0, 1e300, 12345678901234567890], "a": {"é": "\\ud83d"}}'
    with signing_bus.listener() as listener, signing_bus.publisher() as publisher:
        publisher.open_path_to(listener)
        for options, stdin in (
            (("--message", "Größe"), ""),
            (("--modname", "git", "--topic", "receive"), lines),
            (("--json-input",), document),
            (("--topic", "größe", "--message", "x"), ""),
        ):
            done = signing_bus.logger(*options, stdin=stdin)
            assert (done.returncode, done.stderr) == (0, "")
        messages = [json.loads(listener.receive()[1]) for _ in range(6)]
    policies: dict[str, Message] = {
        "no policy": {},
        "allowed": {"routing_policy": {m["topic"]: [SIGNER] for m in messages}},
        "allowed, nitpicky": {
            "routing_policy": {m["topic"]: ["other", SIGNER] for m in messages},
            "routing_nitpicky": True,
        },
    }
    questions = [
        (message, trust(authority, **keys)) for keys in policies.values() for message in messages
    ]
    assert upstream_verdicts(signing_bus, questions) == ["true"] * len(questions)
    assert [signatures.why_invalid(*question) for question in questions] == [None] * len(questions)


def test_cert_prefix_chooses_the_certificate(signing_bus: Bus, authority: Authority) -> None:
    authority.issue("bodhi")
    config = signing_bus.config_file("prefix", certnames={f"bodhi.{HOST}": "bodhi"})
    with signing_bus.listener() as listener, signing_bus.publisher() as publisher:
        publisher.open_path_to(listener)
        for logger in signing_bus.logger, signing_bus.upstream_logger:
            done = logger("--cert-prefix", "bodhi", "--message", "x", config=config)
            assert done.returncode == 0, done.stderr
            message = json.loads(listener.receive()[1])
            assert (
                base64.b64decode(message["certificate"])
                == (authority.directory / "bodhi.crt").read_bytes()
            )
            [verdict] = upstream_verdicts(signing_bus, [(message, trust(authority))])
            assert verdict == "true"


# name: what is done to a valid message.
Change = Callable[[Message], Any]


def _set(key: str, value: Any) -> Change:
    return lambda message: {**message, key: value}


def _without(key: str) -> Change:
    return lambda message: {k: v for k, v in message.items() if k != key}


def _other_signature(message: Message) -> Message:
    signature = bytearray(base64.b64decode(message["signature"]))
    signature[100] ^= 1
    return {**message, "signature": base64.encodebytes(bytes(signature)).decode()}


TAMPERED: dict[str, Change] = {
    "msg": _set("msg", {"log": "Goodbye."}),
    "topic": _set("topic", TOPIC + "d"),
    "timestamp": _set("timestamp", 1349109001),
    "timestamp as a float": _set("timestamp", 1349109000.0),
    "i": _set("i", 2),
    "username": _set("username", "root"),
    "msg_id": _set("msg_id", "2012-1f0d5c0e-9d3a-4ac1-8f30-6d2c8c2a3a67"),
    "a key more": _set("seq_id", 1),
    "headers": _set("headers", {}),
    "a key less": _without("username"),
    "crypto taken out": _without("crypto"),
    "crypto gpg": _set("crypto", "gpg"),
    "crypto null": _set("crypto", None),
    "no signature": _without("signature"),
    "no certificate": _without("certificate"),
    "one bit of the signature": _other_signature,
    "empty signature": _set("signature", ""),
    "signature of something else": _set("signature", base64.encodebytes(b"x" * 256).decode()),
}


def test_what_was_tampered_with_fails_on_both_sides(signing_bus: Bus, authority: Authority) -> None:
    [body] = sign(signing_bus, authority, [VECTORS["plain"]], SIGNER)
    valid = json.loads(body)
    keys = trust(authority)
    questions = [(change(copy.deepcopy(valid)), keys) for change in TAMPERED.values()]
    verdicts = upstream_verdicts(signing_bus, [(valid, keys), *questions])
    assert verdicts[0] == "true"
    assert signatures.why_invalid(valid, keys) is None
    assert dict(zip(TAMPERED, verdicts[1:])) == dict.fromkeys(TAMPERED, "false")
    accepted = [
        name
        for name, question in zip(TAMPERED, questions)
        if signatures.why_invalid(*question) is None
    ]
    assert accepted == []


@dataclass
class Policy:
    """Who signed, what the validating side goes by, and whether it may pass."""

    passes: bool
    keys: Message = field(default_factory=dict)
    signer: str = SIGNER


def _policies(authority: Authority) -> dict[str, Policy]:
    revoked = authority.issue("revoked")
    expired = authority.issue("expired", NOW - 3 * DAY, NOW - 2 * DAY)
    authority.issue("future", NOW + DAY / 2, NOW + DAY)
    authority.issue("other")
    assert expired
    crl = {"crl_location": authority.revoke(revoked, name="revoked.pem")}
    old = {"crl_location": authority.revoke(name="old.pem", until=NOW - DAY)}
    mine, others = {TOPIC: [SIGNER]}, {TOPIC: ["other"]}
    return {
        "by default": Policy(True),
        "no CRL": Policy(True, {"crl_location": None}),
        "a CRL, and not in it": Policy(True, crl),
        "revoked": Policy(False, crl, "revoked"),
        "revoked, no CRL": Policy(True, {"crl_location": None}, "revoked"),
        "a CRL that has expired": Policy(False, old),
        "expired": Policy(False, signer="expired"),
        "not valid yet": Policy(False, signer="future"),
        "policy names the signer": Policy(True, {"routing_policy": mine}),
        "policy names another": Policy(False, {"routing_policy": others}),
        "policy names nobody": Policy(False, {"routing_policy": {TOPIC: []}}),
        "policy of another topic": Policy(True, {"routing_policy": {"x": ["other"]}}),
        "nitpicky, named": Policy(True, {"routing_policy": mine, "routing_nitpicky": True}),
        "nitpicky, not named": Policy(False, {"routing_policy": {}, "routing_nitpicky": True}),
        "a signer without a policy": Policy(False, {"routing_policy": mine}, "other"),
    }


def test_certificates_and_policies_have_the_same_verdict_on_both_sides(
    signing_bus: Bus, authority: Authority
) -> None:
    policies = _policies(authority)
    signed = {
        signer: json.loads(sign(signing_bus, authority, [VECTORS["plain"]], signer)[0])
        for signer in {policy.signer for policy in policies.values()}
    }
    questions = [
        (signed[policy.signer], trust(authority, **policy.keys)) for policy in policies.values()
    ]
    expected = {name: policy.passes for name, policy in policies.items()}
    theirs = [verdict == "true" for verdict in upstream_verdicts(signing_bus, questions)]
    assert dict(zip(policies, theirs)) == expected
    ours = [signatures.why_invalid(*question) is None for question in questions]
    assert dict(zip(policies, ours)) == expected


def test_another_authority_of_the_same_name_fails_on_both_sides(
    signing_bus: Bus, authority: Authority, tmp_path: Path
) -> None:
    false = make_authority(tmp_path / "false")
    false.issue(SIGNER)
    message = json.loads(sign(signing_bus, false, [VECTORS["plain"]], SIGNER)[0])
    keys = trust(authority)
    assert upstream_verdicts(signing_bus, [(message, keys), (message, trust(false))]) == [
        "false",
        "true",
    ]
    assert signatures.why_invalid(message, keys) is not None
    assert signatures.why_invalid(message, trust(false)) is None


def test_tail_shows_only_what_is_valid(signing_bus: Bus, authority: Authority) -> None:
    """With --validate, ours and upstream's."""
    bodies = sign(signing_bus, authority, list(VECTORS.values()), SIGNER)
    valid = json.loads(bodies[0])
    false = [json.dumps(change(valid)).encode() for change in TAMPERED.values()]
    tails = [
        signing_bus.tail("--validate", name="validating"),
        signing_bus.upstream_tail("--validate", name="upstream-validating"),
        signing_bus.tail("--no-validate", name="trusting"),
    ]
    relay = signing_bus.processes["relay"]
    signing_bus.wait_for_listeners(relay, len(tails))
    with signing_bus.publisher() as publisher:
        for body in (*false, *bodies):
            publisher.send(TOPIC.encode(), body)
    end = json.loads(bodies[-1])["msg"]["lines"][-1]
    for tail in tails:
        tail.wait_for_line(end)
    validating, upstream, trusting = (tail.records() for tail in tails)
    assert len(upstream) == len(VECTORS)
    assert validating == upstream
    assert len(trusting) == len(VECTORS) + len(TAMPERED)
