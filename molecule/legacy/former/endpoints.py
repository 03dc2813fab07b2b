config = {
    "endpoints": {
        # Computed by hand, one for each process
        "bodhi.app01": [f"tcp://app01:{3000 + i}" for i in range(3)],
        "fas.fas01": ["tcp://fas01:3013"],
    },
}
