"""Both clients of a relay are used alike."""

from __future__ import annotations

import ast
import inspect

import pytest
from fedmsg_relay.publishing.client import Client
from fedmsg_relay.publishing.inbound_client import InboundClient
from fedmsg_relay.publishing.submit_client import SubmitClient

from tests.support.programs import ROOT

METHODS = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if name[0] != "_"]


@pytest.mark.parametrize("kind", [SubmitClient, InboundClient])
def test_a_client_has_what_all_have_and_no_more(kind: type) -> None:
    public = {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
    assert public == set(METHODS) and len(METHODS) == 10


@pytest.mark.parametrize("name", METHODS)
def test_and_takes_the_same(name: str) -> None:
    wanted = inspect.signature(getattr(Client, name)).parameters
    for kind in (SubmitClient, InboundClient):
        assert inspect.signature(getattr(kind, name)).parameters == wanted


def test_delivery_never_asks_which_it_is() -> None:
    tree = ast.parse((ROOT / "files/fedmsg_relay/publishing/delivery.py").read_text())
    asked = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
    ]
    assert [each for each in asked if "Client" in each] == []
