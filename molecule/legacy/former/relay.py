import socket

address = socket.gethostbyname("busgateway01")

config = {
    "endpoints": {
        # libzmq binds no names
        "relay_outbound": [f"tcp://{address}:3999"],
    },
    "relay_inbound": [f"tcp://{address}:9941", f"tcp://{address}:3998"],
    "relay_contact": "root@" + socket.gethostname(),
}
