config = dict(
    endpoints={
        # Computed by hand, one for each process
        "bodhi.app01": ["tcp://app01:30%02d" % i for i in range(3)],
        "fas.fas01": ["tcp://fas01:3013"],
    },
)
