"""`fedmsg_relay.publish()` in the servers that programs run in, under load and over restarts.

The servers come from a virtual environment of their own, whose path the variable
FEDMSG_SERVERS_VENV holds. What runs in them is in `programs`.
"""
