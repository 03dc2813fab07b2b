"""Upstream fedmsg as the peer: its programs and ours on one bus.

Upstream runs from a virtual environment of its own, whose path the variable FEDMSG_PEER_VENV holds;
ours run from this checkout with the Python that runs the tests.
"""
