# Edited by hand. Do not lose.

config = {
    "topic_prefix": "org.fedoraproject",
    "environment": "prod",
    "high_water_mark": 0,
    "io_threads": 1,
    "post_init_sleep": 1.0,
    "zmq_linger": 2000,
    "zmq_enabled": True,
    "zmq_strict": False,
    "zmq_reconnect_ivl": 100,
    "zmq_reconnect_ivl_max": 500,
    "validate_signatures": False,
    # Keys that only this host's own tools know
    "irc": [{"network": "irc.example.org", "channel": "#fedmsg", "nickname": "fedmsg-bot"}],
    "datagrepper_url": "https://datagrepper.example.org/raw",
}
