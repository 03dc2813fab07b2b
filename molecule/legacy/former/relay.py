import socket

address = socket.gethostbyname("busgateway01")

config = dict(
    endpoints={
        # libzmq binds no names
        "relay_outbound": ["tcp://%s:3999" % address],
    },
    relay_inbound=["tcp://%s:9941" % address, "tcp://%s:3998" % address],
    relay_contact="root@" + socket.gethostname(),
)
