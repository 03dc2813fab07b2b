"""The one harness of all tests and measurements.

`programs` starts and ends programs, `waiting` waits for what has to come, `ports` finds free ports,
`proxy` makes a way worse, `slow` slows the relay down, `messages` and `sockets` send and hear raw
messages, `relays` has a config directory and what runs by it.
"""
