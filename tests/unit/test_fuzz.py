"""The targets of `make fuzz`, shortly: that they still run, and always with the same inputs."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.fuzz.run import TARGETS, attack, main

# Inputs of each; fewer where one takes a file or a connection.
INPUTS = dict.fromkeys(TARGETS, 100) | {"journal_file": 20, "submitted": 40}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_stands_its_inputs(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].check(seed)
    attack(TARGETS[name], INPUTS[name])


def test_what_a_target_does_not_stand_is_found_and_made_small() -> None:
    seen: list[bytes] = []

    class Weak(ModuleType):
        WORDS = (b"!",)

        @staticmethod
        def seeds() -> list[bytes]:
            return [b"a valid input"]

        @staticmethod
        def check(octets: bytes) -> None:
            seen.append(octets)
            assert b"!" not in octets

    with pytest.raises(AssertionError):
        attack(Weak("weak"), 200)
    assert b"!" in seen[-1] and len(seen[-1]) < 20


def test_a_target_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) == 2
    assert "no target nothing: there are zmtp, " in capsys.readouterr().out
